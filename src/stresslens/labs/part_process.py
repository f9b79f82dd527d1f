"""A part is executed and checked in a process of its own, with a time limit.

python -m stresslens.labs.part_process PART.json ANSWER.json
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.spelling import unknown_key
from stresslens.core.types import Finding
from stresslens.labs.agreement import differs
from stresslens.labs.part import KINDS, LabPart

NAME = "part.py"
REFERENCES = {**KINDS, "gradient": "losses"}
"""The folder of the plug-ins that a kind is compared with."""


def part_findings(part: LabPart, seconds: float) -> list[Finding]:
    """Executes a part in another process and returns what the check of its kind found. Code that
    raises, ends the process or needs longer than `seconds` is a finding. Raises ConfigError for a
    line `# part:` that is not valid."""
    with tempfile.TemporaryDirectory(prefix="stresslens-part-") as folder:
        question, answer = Path(folder) / "part.json", Path(folder) / "answer.json"
        values = {**dataclasses.asdict(part), "folder": str(part.folder.resolve())}
        question.write_text(json.dumps(values), encoding="utf-8")
        words = [sys.executable, "-P", "-m", "stresslens.labs.part_process", str(question), str(answer)]
        errors = Path(folder) / "errors.txt"
        with errors.open("wb") as file:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                cwd=part.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            why = f"it was not finished after {seconds:g} s, and was stopped"
            return [differs("time limit", why, 1, "--time-limit SECONDS allows longer")]
        finally:
            _kill(process)
        if not answer.is_file():
            said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = said[-1] if said else "it said nothing"
            return [differs("execution", f"its process ended without an answer: {last}", 1)]
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "problem" in found:
        raise ConfigError(f"{part.where}: {found['problem']}")
    return [Finding.from_json(each) for each in found["findings"]]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and those that it started."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # it has ended
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def check_part(part: LabPart, file: Path) -> list[Finding]:
    """Executes the part, which is in `file`, and checks it. Raises ConfigError for a line `# part:`
    that is not valid."""
    from stresslens.config import own_plugins, registry

    check, folder, others = _check_of(part.kind), KINDS[part.kind], REFERENCES[part.kind]
    options = _options(part, check)
    reference = None
    if part.reference:
        if others is None:
            raise ConfigError(f"a part of the kind {part.kind} has no reference to name: {part.reference!r}")
        reference = registry.resolve(others, _value(part.reference), trust=False)
    try:
        if folder is None:
            function = getattr(own_plugins.module_of_file(file.resolve()), part.function)
        else:
            function = registry.resolve(folder, f"{file}:{part.function}")
        return check(function, reference, **options)
    except ConfigError as error:
        return [differs("signature", str(error).replace(f"{file}:{part.function}", part.function), 1)]
    except Exception as error:
        return [differs("execution", f"it raises {type(error).__name__}: {error}{_place(error, file)}", 1)]


def _check_of(kind: str) -> Callable[..., list[Finding]]:
    from stresslens.labs import image_parts, network_parts, training_parts

    checks: dict[str, Callable[..., list[Finding]]] = {
        "gradient": training_parts.check_gradient,
        "loss": training_parts.check_loss,
        "optimizer": training_parts.check_optimizer,
        "convolution": network_parts.check_convolution,
        "model": network_parts.check_model,
        "attack": image_parts.check_attack,
        "explainer": image_parts.check_explainer,
    }
    return checks[kind]


def _options(part: LabPart, check: Callable[..., Any]) -> dict[str, Any]:
    """The options of the line `# part:` as values. Raises ConfigError."""
    from pydantic import TypeAdapter, ValidationError

    from stresslens.config.registry import options_of

    known, values = options_of(check), {}
    for name, text in part.options.items():
        if name not in known:
            raise ConfigError(
                unknown_key(name, known, f"a part of the kind {part.kind} has no option {name!r}")
            )
        try:
            values[name] = TypeAdapter(known[name].annotation).validate_python(_value(text))
        except ValidationError as error:
            raise ConfigError(f"option {name}={text}: {error.errors()[0]['msg'].lower()}") from None
    return values


def _value(text: str) -> Any:
    from stresslens.config.yaml_source import parse_value

    return parse_value(text)


def _place(error: Exception, file: Path) -> str:
    """The last line of the part that an error came through."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    return f" (line {lines[-1]} of the part)" if lines else ""


def _main(question: str, answer: str) -> None:
    """Reads a part, and writes its findings, or what is wrong with its line `# part:`."""
    from stresslens.core.torch_settings import initial_settings

    values: Mapping[str, Any] = json.loads(Path(question).read_text(encoding="utf-8"))
    part = LabPart(**{**values, "folder": Path(values["folder"])})
    file = Path(question).with_name(NAME)
    file.write_text(part.source, encoding="utf-8")
    sys.path.append(str(part.folder))
    try:
        with initial_settings():
            found: dict[str, Any] = {"findings": [finding.as_json() for finding in check_part(part, file)]}
    except StresslensError as error:
        found = {"problem": str(error)}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:3])
