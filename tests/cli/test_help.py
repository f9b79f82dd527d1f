"""--help says what each command does in one short sentence that no terminal cuts."""

from __future__ import annotations

import typer.main
from typer.testing import CliRunner

from stresslens.cli.main import app

LONGEST = 45
VERBS = {
    *("Run", "Train", "Score", "Compare", "Measure", "Recount", "Check", "Compute", "Classify", "Export"),
    *("Write", "List", "Show", "Find", "Count", "Combine", "Serve"),
}


def commands() -> dict[str, str]:
    """The first sentence of each command's help, by the words that call it."""
    found: dict[str, str] = {}

    def visit(group: object, path: tuple[str, ...]) -> None:
        for name, command in getattr(group, "commands", {}).items():
            found[" ".join((*path, name))] = (command.help or "").split("\n\n")[0].replace("\n", " ").strip()
            visit(command, (*path, name))

    visit(typer.main.get_command(app), ())
    return found


def test_the_first_sentence_of_every_command_is_short_and_begins_with_a_verb() -> None:
    for name, sentence in commands().items():
        assert len(sentence) <= LONGEST, (name, sentence)
        assert sentence.endswith("."), (name, sentence)
        assert sentence.split()[0] in VERBS, (name, sentence)


def test_the_list_of_commands_shows_them_whole() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert "..." not in text.split("Commands:")[1]
    for name, sentence in commands().items():
        if " " not in name:
            assert sentence in text, name
