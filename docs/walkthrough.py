"""Types what a page of the tutorials says, in an empty folder.

A block that begins with a comment `# NAME.yaml` or `# NAME.py` is a file to save. In a `console` block,
a line behind `$ ` is a command, and the lines below it are its output, where `…` stands for any text.
The progress on standard error is not part of it.

    python docs/walkthrough.py docs/start.md FOLDER            # prints what the commands print
    python docs/walkthrough.py docs/start.md FOLDER write      # and writes it into the page
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(console|yaml|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WIDTH = 100
TABLE = "┏┃┡│└"
"""A line of a table begins with one of these."""
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Command:
    """A command of a page, what the page says that it prints, what it printed, and its exit code."""

    text: str
    expected: str
    in_page: str = ""
    """The command with its output, as the page has it."""
    output: str = ""
    errors: str = ""
    exit_code: int | None = None

    @property
    def as_written(self) -> bool:
        """Whether the output is the one in the page. A page that shows none promises none."""
        return not self.expected or doctest.OutputChecker().check_output(
            self.expected.replace("…", "..."), self.output.replace("…", "..."), SAME
        )


def files_and_commands(page: str) -> Iterator[tuple[Path, str] | Command]:
    """What a reader of the page saves (name and text) and types, in the page's order."""
    for kind, text in BLOCK.findall(page):
        if kind != "console":
            if named := re.match(r"# ([\w.-]+\.(?:yaml|py))\n", text):
                yield Path(named[1]), text
            continue
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, output = re.match(r"((?:.*\\\n)*.*\n)((?s:.*))", part).groups()  # type: ignore[union-attr]
            yield Command(command.strip(), output.strip(), part)


def walk(page: str, folder: Path) -> Iterator[Command]:
    """Saves the files of a page and types its commands in the folder, where the repository's studies
    lie too. Yields each command when it is done."""
    if not (folder / "studies").exists():
        (folder / "studies").symlink_to(ROOT / "studies")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    surroundings = {**os.environ, "PATH": path, "COLUMNS": str(WIDTH), "PYTHONPATH": str(ROOT / "src")}
    for step in files_and_commands(page):
        if not isinstance(step, Command):
            name, text = step
            (folder / name).write_text(text, encoding="utf-8")
            continue
        done = subprocess.run(
            ["bash", "-c", step.text], cwd=folder, env=surroundings, capture_output=True, text=True
        )
        step.output, step.errors, step.exit_code = done.stdout.strip(), done.stderr, done.returncode
        yield step


def output_in_page(output: str) -> str:
    """What a command printed, for a page: at most 100 characters wide but for tables, without times."""
    lines = []
    for line in re.sub(r"\b[\d.]+ (s|min)\b(?=\)| for the)", "…", output).splitlines():
        indent = re.match(r" *", line)[0]  # type: ignore[index]
        in_table = line[:1] in TABLE
        lines += [line] if in_table else textwrap.wrap(line, WIDTH, subsequent_indent=indent) or [""]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def main(file: Path, folder: Path, write: bool) -> None:
    """Prints what the commands of a page print; writes it into the page where the page has something
    else."""
    folder.mkdir(parents=True, exist_ok=True)
    page = file.read_text(encoding="utf-8")
    for command in walk(page, folder):
        print(f"$ {command.text}\n{command.output}", flush=True)
        if command.exit_code:
            print(f"exit code {command.exit_code}\n{command.errors}")
        if not command.expected or not command.as_written:
            typed = (
                command.in_page.removesuffix(command.expected + "\n") if command.expected else command.in_page
            )
            page = page.replace(command.in_page, typed + output_in_page(command.output), 1)
    if write:
        file.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "write" in sys.argv[3:])
