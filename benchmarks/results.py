"""The measured figures of finished studies as tables in Markdown, each row with the commit that it
was made at.

    python benchmarks/results.py runs > docs/measured.md       # `make results` ends with this

Accuracy on the test images with its interval and what it is over; training time is the mean of a
run, on the machine as it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

from stresslens.core.format import percent
from stresslens.core.text import duration
from stresslens.report.load import StudyFolder, VariantRuns, load_study

HEAD = (
    "run",
    "test accuracy, %",
    "interval over",
    "images",
    "seeds",
    "epochs",
    "parameters",
    "training",
    "commit",
)


def row(config: VariantRuns, split: str) -> tuple[str, ...]:
    estimate, shown = config.score(split, "accuracy"), config.shown
    assert shown is not None
    training, layers = shown.record.training, shown.record.layers
    seconds = config.mean(lambda run: run.record.training.seconds)
    commits = sorted({run.environment.get("commit", "") for run in config.finished})
    return (
        config.name,
        percent(estimate),
        "–" if estimate is None else "images and seeds" if estimate.unit == "both" else estimate.unit,
        f"{estimate.n:,}" if estimate else "–",
        str(len(config.finished)),
        str(training.epochs or "–"),
        f"{layers.parameters:,}" if layers else "–",
        duration(seconds) if seconds is not None else "–",
        ", ".join("–" if commit == "null" else commit[:7] for commit in commits),
    )


def table(study: StudyFolder) -> str:
    rows = [row(config, study.split) for config in study.variants if config.finished]
    lines = [f"## {study.name}", "", f"`stresslens run studies/{study.name}.yaml`", ""]
    lines += [
        f"| {' | '.join(HEAD)} |",
        f"|{'---|' * len(HEAD)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    if study.comparison and study.comparison.verdicts:
        lines += ["", *(f"- {verdict}" for verdict in study.comparison.verdicts)]
    return "\n".join(lines)


def main() -> None:
    home = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
    folders = sorted(folder for folder in home.iterdir() if (folder / "study.json").is_file())
    print(
        "# Measured\n\nMade by `make results`; the tables beside the labs' own figures are in "
        "[results.md](results.md).\n"
    )
    print("\n\n".join(table(load_study(folder)) for folder in folders))


if __name__ == "__main__":
    main()
