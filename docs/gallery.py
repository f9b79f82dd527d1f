"""Gives the commands of docs/gallery.md and collects the report pages in docs/_build/gallery/gallery,
from where the site takes them. What is finished is not computed again.

    python docs/gallery.py
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from walkthrough import walk

DOCS = Path(__file__).parent
FOLDER = DOCS / "_build" / "gallery"


def main() -> None:
    work = DOCS / "_build" / "gallery-runs"
    work.mkdir(parents=True, exist_ok=True)
    for command in walk((DOCS / "gallery.md").read_text(encoding="utf-8"), work):
        if command.exit_code:
            sys.exit(f"{command.text}: exit code {command.exit_code}\n{command.errors}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    for report in (work / "runs").rglob("report.html"):
        target = FOLDER / "gallery" / report.relative_to(work / "runs")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report, target)


if __name__ == "__main__":
    main()
