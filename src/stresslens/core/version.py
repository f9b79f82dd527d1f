"""The version, which is written into every run folder and result."""

__version__ = "0.4.0"
