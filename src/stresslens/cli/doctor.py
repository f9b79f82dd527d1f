"""`stresslens doctor`: shows what this machine can do."""

from __future__ import annotations

import typer

from stresslens.cli.options import Json
from stresslens.cli.terminal import print_json, print_table


def doctor(as_json: Json = False) -> None:
    """Show what this machine can do.

    It prints versions, processor, device, precision, free disk, the folders for data and caches, and
    the choices of precision and memory format that were measured here and are kept. It says whether
    the installed torch is one of those that were tested, whether torchvision fits it, and which extras
    are not installed.
    """
    import shutil

    import torch

    from stresslens.core.cache_folder import cache_problem, cache_root
    from stresslens.core.compute_choice import bfloat16_in_hardware
    from stresslens.core.data import data_root
    from stresslens.core.devices import pick_device
    from stresslens.core.extras import EXTRAS, install_command, missing_modules
    from stresslens.core.kept_choices import choice_as_json, choices_folder, kept_choices
    from stresslens.core.run_folder import environment
    from stresslens.core.torch_versions import NEWEST, OLDEST, torch_problems, torchvision_imports
    from stresslens.core.torchvision_compat import is_cured

    facts = environment({}).as_json()
    facts.pop("command")
    facts |= {"device": pick_device("auto"), "threads": torch.get_num_threads()}
    facts["bfloat16 in hardware"] = bfloat16_in_hardware(facts["device"])
    problems = torch_problems()
    facts["tested with torch"] = f"{OLDEST} to {NEWEST}"
    imports = torchvision_imports()
    facts |= {"torchvision imports": imports, "torchvision imports by itself": imports and not is_cured()}
    facts["not installed"] = {name: install_command(name) for name in EXTRAS if missing_modules(name)}
    facts["data folder"] = str(data_root())
    pictures = cache_root() / "pictures"
    facts["decoded images, GB"] = round(
        sum(f.stat().st_size for f in pictures.rglob("*") if f.is_file()) / 1e9, 1
    )
    problem = cache_problem()
    facts["cache folder"] = f"{cache_root()} {problem}" if problem else str(cache_root())
    facts["kept choices"] = str(choices_folder())
    existing = next(folder for folder in (cache_root(), *cache_root().parents) if folder.exists())
    facts["free disk, GB"] = round(shutil.disk_usage(existing).free / 1e9, 1)
    if as_json:
        print_json(
            facts | {"problems": problems} | {"choices": [choice_as_json(*each) for each in kept_choices()]}
        )
        return
    missing = ", ".join(facts.pop("not installed"))
    rows = [
        [key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)]
        for key, value in facts.items()
    ]
    print_table(["fact", "here"], rows, "doctor")
    for problem in problems:
        typer.echo(problem)
    if missing:
        typer.echo(f"extras that are not installed: {missing}; {install_command('…')}")
    _print_choices()


def _print_choices() -> None:
    """Prints the kept choices, and how to be rid of them."""
    from stresslens.core.kept_choices import SWITCH, choices_folder, kept_choices, measuring_allowed

    rows = [
        [path.name, *(kept.told if kept else ("damaged: made anew", "", ""))] for path, kept in kept_choices()
    ]
    if rows:
        print_table(["kept choice", "of", "chosen", "times as fast"], rows, "measured on this machine")
        typer.echo(f"To have a choice made anew, delete its file in {choices_folder()}.")
    if not measuring_allowed():
        typer.echo(f"{SWITCH}=0: nothing is measured, and no kept choice is used.")
