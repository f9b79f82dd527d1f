"""Runs behind HTTP on this machine: a prediction service, and a page to try them on."""
