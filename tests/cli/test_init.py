"""A start without a clone: `stresslens init` and `stresslens schema`."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from stresslens.config import json_schema, study_file
from stresslens.config.json_schema import schema_text
from stresslens.config.presets import presets
from stresslens.config.shipped_studies import shipped_studies
from stresslens.core.errors import ConfigError

Type = Callable[..., tuple[int, str, str]]
STUDIES = Path(__file__).parents[2] / "studies"


def test_init_writes_the_quickstart_and_the_schema(type_: Type, tmp_path: Path) -> None:
    code, out, _ = type_("init")
    assert code == 0
    assert out.splitlines() == [
        "wrote studies/quickstart.yaml",
        "wrote studies/schema.json",
        "next: stresslens run studies/quickstart.yaml",
    ]
    written = tmp_path / "studies"
    assert (written / "quickstart.yaml").read_bytes() == (STUDIES / "quickstart.yaml").read_bytes()
    assert (written / "schema.json").read_text(encoding="utf-8") == schema_text()
    assert type_("run", "studies/quickstart.yaml", "--dry-run")[0] == 0


def test_init_elsewhere_with_more_studies_and_their_plugins(type_: Type, tmp_path: Path) -> None:
    code, out, _ = type_("init", "my lab", "--study", "cifar-first-cnn", "--study", "quickstart")
    assert code == 0
    assert out.splitlines()[-1] == "next: cd 'my lab' && stresslens run studies/cifar-first-cnn.yaml"
    assert (tmp_path / "my lab/studies/plugins/softmax_cnn.py").is_file()
    assert study_file.read_study(tmp_path / "my lab/studies/cifar-first-cnn.yaml").variants


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_the_plugins_of_a_study_come_with_it(name: str) -> None:
    study = shipped_studies()[name]
    assert all((study.file.parent / file).is_file() for file in study.needs)
    assert (".py:" in study.file.read_text()) == bool(study.needs)
    assert study.purpose


@pytest.mark.parametrize("name", presets())
def test_init_writes_a_study_that_begins_from_a_preset(type_: Type, tmp_path: Path, name: str) -> None:
    code, out, _ = type_("init", "--preset", name)
    assert code == 0
    assert out.splitlines() == [
        f"wrote studies/{name}.yaml",
        "wrote studies/schema.json",
        f"next: stresslens run studies/{name}.yaml",
    ]
    file = tmp_path / "studies" / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    assert all(len(line) <= 110 and line == line.rstrip() for line in text.splitlines())
    study, preset = study_file.read_study(file), presets()[name]
    settings = {"data": "digits", **preset.settings}
    assert study.seeds == [0, 1, 2]
    same = study_file.expand_study(settings, name="same", base=tmp_path)
    assert study.variants[0].config == same.variants[0].config
    above, _, comment = text.partition("takes their place:\n#\n")
    kept = "\n".join(line.removeprefix("# ") for line in comment.splitlines())
    assert yaml.safe_load(kept) == preset.settings
    assert above.startswith(f"# stresslens run studies/{name}.yaml\n#\n# It begins from the preset {name}: ")


def test_init_with_a_study_and_presets(type_: Type, tmp_path: Path) -> None:
    code, out, _ = type_("init", "a", "--preset", "airbench", "--study", "quickstart")
    assert code == 0
    assert out.splitlines()[-1] == "next: cd a && stresslens run studies/quickstart.yaml"
    assert {file.name for file in (tmp_path / "a/studies").iterdir()} == {
        "airbench.yaml",
        "quickstart.yaml",
        "schema.json",
    }
    code, _, err = type_("init", "b", "--preset", "airbnch")
    assert code == 2
    assert "no preset is called 'airbnch'; did you mean 'airbench'?" in err
    assert not (tmp_path / "b").exists()


def test_init_never_overwrites(type_: Type, tmp_path: Path) -> None:
    mine = tmp_path / "studies"
    mine.mkdir()
    (mine / "quickstart.yaml").write_text("data: mnist\n")
    (mine / "schema.json").symlink_to("nowhere")
    code, out, _ = type_("init")
    assert code == 0
    assert out.splitlines()[:2] == [
        "kept studies/quickstart.yaml, which is there already",
        "kept studies/schema.json, which is there already",
    ]
    assert (mine / "quickstart.yaml").read_text() == "data: mnist\n"
    assert not (mine / "schema.json").exists()


def test_init_in_a_file(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    assert type_("init", "a") == (2, "", "stresslens: a/studies cannot be made: a part of it is a file\n")


def test_a_misspelt_study(type_: Type, tmp_path: Path) -> None:
    code, _, err = type_("init", "--study", "digits-hardned")
    assert code == 2
    assert "did you mean 'digits-hardening'?" in err
    assert list(tmp_path.iterdir()) == []


def test_the_schema(type_: Type, tmp_path: Path) -> None:
    code, out, _ = type_("schema")
    assert (code, out) == (0, schema_text())
    assert type_("schema", "--out", "s.json") == (0, "", "wrote s.json\n")
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["type"] == "object"
    assert type_("schema", "--out", "none/s.json") == (0, "", "wrote none/s.json\n")
    assert (tmp_path / "none/s.json").read_bytes() == schema_text().encode()


def test_a_failure_leaves_no_half_written_file(
    type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> str:
        raise ConfigError("no schema")

    monkeypatch.setattr(json_schema, "schema_text", fails)
    assert type_("init")[0] == 2
    assert [file.name for file in (tmp_path / "studies").iterdir()] == ["quickstart.yaml"]
    (tmp_path / "schema.json").write_text("old")
    monkeypatch.setattr(json_schema, "schema_text", lambda: "{}")
    monkeypatch.setattr(os, "fsync", no_space)
    code, _, err = type_("schema", "--out", "schema.json")
    assert code == 1
    assert err.startswith("stresslens: cannot write schema.json: ")
    assert type_("init", "here")[0] == 1
    assert (tmp_path / "schema.json").read_text() == "old"
    assert not list((tmp_path / "here/studies").iterdir())


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_study_that_is_not_there_names_init(type_: Type) -> None:
    code, _, err = type_("run", "studies/quickstart.yaml")
    assert code == 2
    assert "`stresslens init --study quickstart` writes one" in err
    assert "init" not in type_("run", "studies/mine.yaml")[2]
