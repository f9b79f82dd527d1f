"""The folders of runs in the file system, told from others by their files."""

from __future__ import annotations

from pathlib import Path


def runs_in(path: Path) -> list[Path]:
    """The folders of the runs in a run's, a variant's, a study's or several studies' folder, sorted;
    none in any other folder, and in a file."""
    try:
        if (path / "record.json").is_file() and (path / "config.yaml").is_file():
            return [path]
        patterns = ["seed-*"]
        patterns += ["*/seed-*"] if (path / "study.json").is_file() else []
        patterns += ["*/*/seed-*"] if any(path.glob("*/study.json")) else []
        records = [record for pattern in patterns for record in path.glob(f"{pattern}/record.json")]
    except (OSError, ValueError):  # no path at all
        return []
    return sorted(record.parent for record in records)


def result_folder(plugin: str, fingerprint: str) -> str:
    """The name of the folder of what a plug-in computed: `saliency-0123abcd`, and for `file.py:own` or
    `package.module:own` the function's name alone."""
    return f"{plugin.rpartition(':')[2]}-{fingerprint[:8]}"
