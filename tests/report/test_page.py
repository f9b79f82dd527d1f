"""The report's page, from run folders whose files are written here by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from stresslens.core.errors import ConfigError
from stresslens.core.layers import layer_table
from stresslens.report.page import render, write_report
from stresslens.report.reading import Record, read_study

HOSTILE = "<script>alert(1)</script>\"'\u202e‮&{{ 7*7 }}</style>" + "x" * 300


def estimate(value: float, *, spread: float = 0.02, n: int = 360, unit: str = "images", method: str = "Wilson") -> dict[str, Any]:
    low, high = value - spread, value + spread
    return {"value": value, "low": low, "high": high, "n": n, "method": method, "level": 0.95, "unit": unit}


def png(width: int, height: int, shade: int) -> bytes:
    """A grey square, by hand: header, one zlib stream of rows, end."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    rows = b"".join(b"\0" + bytes((shade + 9 * x * y) % 256 for x in range(width)) for y in range(height))
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def layer(name: str, kind: str, output: list[int], parameters: int, multiply_adds: int) -> dict[str, Any]:
    counts = {"parameters": parameters, "trainable": parameters, "neurons": 8 * len(output), "multiply_adds": multiply_adds}
    return {"name": name, "type": kind.title(), "kind": kind, "output": output} | counts


LAYERS = {
    "layers": [layer("conv", "conv", [8, 8, 8], 80, 4608), layer("fc", "linear", [10], 5130, 5120)],
    "parameters": 5210,
    "trainable": 5210,
    "input_megabytes": 0.0002,
    "activation_megabytes": 0.004,
    "parameter_megabytes": 0.02,
    "neurons": 32,
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_run(study: Path, run: str, seed: int, *, folder: str = "", epochs: int = 5, pictures: int = 6, **changes: Any) -> Path:
    """A finished run; `changes` replace keys of its record, None removing them."""
    path = study / (folder or run) / f"seed-{seed}"
    classes = changes.get("classes") or [str(i) for i in range(10)]
    k = len(classes)
    accuracy = 0.95 + 0.01 * ((sum(map(ord, run)) + 3 * seed) % 4)
    record = {
        "format": 1,
        "version": "0.1.0",
        "status": "finished",
        "message": "",
        "study": study.name,
        "run": run,
        "seed": seed,
        "classes": classes,
        "shape": [1, 8, 8],
        "data": {
            "name": "digits",
            "fingerprint": "8f3c",
            "sizes": {"train": 1077, "validation": 360, "test": 360},
            "notes": ["a note"],
        },
        "training": {
            "epochs": epochs,
            "chosen_epoch": epochs - 1,
            "steps": 17 * epochs,
            "seconds": 4.2,
            "images_per_second": 1300.0,
            "stopped": "all epochs done",
            "select": "accuracy",
        },
        "layers": LAYERS,
        "scores": {
            "test": {
                "accuracy": estimate(accuracy),
                "top5": estimate(0.999, spread=0.001),
                "balanced_accuracy": estimate(accuracy - 0.001, method="bootstrap"),
                "cross_entropy": estimate(0.1, method="bootstrap"),
                "majority_baseline": estimate(0.103),
            }
        },
        "per_class": {"test": {name: [estimate(0.9 + i / 200) for i in range(k)] for name in ("precision", "recall", "f1")}},
        "confusion": {"test": [[34 if i == j else int(j == (i + 1) % k) * 2 for j in range(k)] for i in range(k)]},
        "reads_of_test": 1,
        "watched_test": False,
        "resumed_from": [{"epoch": 1, "step": 3}],
        "findings": [],
        "stages": {},
    }
    record["per_class"]["test"]["support"] = [36] * k  # type: ignore[index]
    record = {key: value for key, value in (record | changes).items() if value is not None}
    write_json(path / "record.json", record)
    lines = [
        {
            "epoch": e,
            "loss": 2 / e**1.5 + 0.05 * seed,
            "lr": 0.001,
            "validation": {"loss": 1.5 / e, "accuracy": 1 - 0.5 / (e + seed / 4)},
        }
        for e in range(1, epochs + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 99, "lo')
    write_json(
        path / "environment.json",
        {"python": "3.11.9", "packages": {"torch": "2.13"}, "command": ["stresslens", "run", "a b.yaml"]},
    )
    (path / "config.yaml").write_text("train:\n  lr: 1e-3  # </pre><script>\n")
    entries = []
    for i in range(pictures):
        (path / "examples").mkdir(exist_ok=True)
        (path / "examples" / f"{i:05d}.png").write_bytes(png(8, 8, 17 * i))
        kind = "mistake" if i >= pictures // 2 else "sample"
        predicted = (i + (kind == "mistake")) % k
        entries.append(
            {"file": f"{i:05d}.png", "index": i, "truth": i % k, "predicted": predicted, "probability": 0.93, "kind": kind}
        )
    write_json(path / "examples" / "examples.json", entries)
    return path


def write_study(root: Path, runs: list[str], seeds: int = 1, name: str = "digits-optimizers", **options: Any) -> Path:
    study = root / "study"
    for place, run in enumerate(runs):
        for seed in range(seeds):
            write_run(study, run, seed, folder=f"run{place}", **options)
    contrasts = [["optimizer", runs[0], other] for other in runs[1:]]
    head = "# stresslens run studies/x.yaml   about 1 min\n# Expect: adam 98.0"
    command = ["stresslens", "run", "studies/x.yaml", "train.epochs=5"]
    about = {"runs": runs, "seeds": list(range(seeds)), "contrasts": contrasts, "command": command, "source": "studies/x.yaml"}
    write_json(study / "study.json", {"format": 1, "name": name, "head": head, **about})
    verdict = "not distinguishable; 3 000 images and 12 seeds would tell 0.5 points"
    difference = {"difference": estimate(0.004, unit="both"), "p": 0.21, "p_holm": 0.42, "real": False, "verdict": verdict}
    comparison = {
        "format": 1,
        "split": "test",
        "metric": "accuracy",
        "level": 0.95,
        "recipes": {run: estimate(0.95 + 0.004 * (i % 7), unit="both", method="crossed bootstrap") for i, run in enumerate(runs)},
        "contrasts": [{"contrast": c, "a": a, "b": b} | difference for c, a, b in contrasts],
        "verdicts": ["No optimizer is distinguishable from sgd with 360 images and 3 seeds."],
    }
    write_json(study / "comparison.json", comparison)
    return study


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, the text outside scripts and styles, and the raw scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in self.raw else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside].append(data)
        else:
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(name))]


def page_of(study: Path) -> tuple[str, Page]:
    html = write_report(study).read_text(encoding="utf-8")
    return html, Page(html)


SECTIONS = ["verdicts", "results", "contrasts", "curves", "confusion", "classes", "pictures", "layers", "data", "runs"]
SECTIONS += ["environment", "reproduce"]


def test_every_section_in_order(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"], seeds=2)
    html, page = page_of(study)
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == SECTIONS
    for said in (
        "No optimizer is distinguishable",
        "95.4 (93.4 to 97.4)",
        "+0.4 (−1.6 to +2.4)",
        "images and seeds",
        "pooled over 2 seeds",
        "0.420",
        "crossed bootstrap",
        "8 × 8 × 8",
        "a note",
        "stresslens run studies/x.yaml train.epochs=5",
        "Expect: adam 98.0",
        "packages.torch",
        "epoch 1, step 3",
        "majority class 10.3",
    ):
        assert said in page.text, said
    assert len(html) < 200_000
    assert not list(study.glob(".report*"))


def test_the_same_files_give_the_same_page(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    assert render(read_study(study)) == render(read_study(study))


def test_hostile_names_are_text(tmp_path: Path) -> None:
    classes = [HOSTILE, "</bdi><img src=x onerror=alert(1)>", "שלום", *(f"'{i}\"" for i in range(7))]
    study = write_study(tmp_path, [HOSTILE, "' onload='alert(1)"], name=HOSTILE, classes=classes, seeds=2)
    write_run(study, "<b>", 0, status="diverged", message=HOSTILE, folder="bold")
    html, page = page_of(study)
    assert html.count("<script>") == html.count("</script>") == 1
    assert "{{ 7*7 }}" in page.text
    assert [name for _, attrs in page.tags for name in attrs if name.startswith("on")] == []
    assert "alert(1)" in page.text
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    plain = Page(write_report(write_study(tmp_path / "plain", ["sgd", "adam"], seeds=2)).read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}


def test_lone_surrogates_and_controls_do_not_stop_the_page(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a\ud800b\x00"])
    assert "a?b" in write_report(study).read_text(encoding="utf-8")


def test_the_policy_allows_nothing_but_the_one_script(tmp_path: Path) -> None:
    html, page = page_of(write_study(tmp_path, ["sgd", "adam"]))
    (policy,) = [
        attrs["content"] for tag, attrs in page.tags if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    (script,) = page.raw["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert html.index("Content-Security-Policy") < html.index("<style") < html.index("<script")


def test_no_request_to_any_host(tmp_path: Path) -> None:
    html, page = page_of(write_study(tmp_path, ["sgd"]))
    assert all(value.startswith("data:") for value in page.attributes("src"))
    assert all(value.startswith("#") for value in page.attributes("href"))
    assert "url(" not in html
    assert "@import" not in html
    assert "://" not in html


@pytest.mark.parametrize("status", ["running", "stopped", "diverged", "something else"])
def test_a_run_that_did_not_finish_is_shown(tmp_path: Path, status: str) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    gone = dict.fromkeys(("training", "layers", "scores", "per_class", "confusion"))
    write_run(study, "adam", 0, folder="run1", status=status, message="the loss is NaN in epoch 3", **gone)
    _, page = page_of(study)
    assert "1 of 2 runs did not finish" in page.text
    assert status in page.text
    assert "the loss is NaN in epoch 3" in page.text


def test_a_listed_run_without_a_record_and_a_damaged_record_are_shown(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam", "lion"])
    (study / "run1" / "seed-0" / "record.json").write_text('{"format": 1, "stat')
    for file in (study / "run2").rglob("*.*"):
        file.unlink()
    _, page = page_of(study)
    assert "unreadable" in page.text
    assert "not started" in page.text
    assert "lion" in page.text


def test_nothing_finished_yet(tmp_path: Path) -> None:
    write_json(tmp_path / "sgd" / "seed-0" / "record.json", {"format": 1, "status": "running"})
    _, page = page_of(tmp_path)
    assert "No run has finished yet." in page.text
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["verdicts", "unfinished", "runs", "reproduce"]


def test_watching_the_test_split_is_bannered(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    assert "never used to choose" not in page_of(study)[1].text
    write_run(study, "sgd", 0, folder="run0", watched_test=True, reads_of_test=6)
    assert "The test split was shown after every epoch (6 reads), never used to choose." in page_of(study)[1].text


def test_a_single_run_has_its_own_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", "adam", 0)
    _, page = page_of(run)
    assert (run / "report.html").is_file()
    assert "study · adam · seed 0" in page.text
    assert "of the test split is classified correctly, against 10.3 for always naming the commonest class" in page.text


def test_several_seeds_without_a_comparison_give_a_mean_over_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "adam", seed)
        write_run(tmp_path, "sgd", seed)
    _, page = page_of(tmp_path)
    assert "wider of t over 3 seeds and a run's own" in page.text
    assert "No comparison has been made" in page.text


def test_no_run_is_a_clear_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="there is no run in"):
            write_report(folder)


def test_a_damaged_comparison_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd"])
    (study / "comparison.json").write_text('{"format": 2}')
    with pytest.raises(ConfigError, match=r"comparison\.json: format"):
        write_report(study)


def test_pictures_come_from_the_folder_of_examples_only(tmp_path: Path) -> None:
    run = write_run(tmp_path, "adam", 0, pictures=0)
    (run / "secret.png").write_bytes(png(8, 8, 0))
    (run / "examples" / "text.png").write_text("<svg>")
    (run / "examples" / "link.png").symlink_to(run / "secret.png")
    entry = {"truth": 0, "predicted": 1, "probability": 0.5, "kind": "sample"}
    files = ("../secret.png", str(run / "secret.png"), "text.png", "link.png", "missing.png", "\0")
    write_json(run / "examples" / "examples.json", [entry | {"file": file} for file in files])
    _, page = page_of(run)
    assert page.attributes("src") == []
    assert "6 more not shown" in page.text


def test_many_classes_show_the_most_confused_pairs(tmp_path: Path) -> None:
    run = write_run(tmp_path, "adam", 0, classes=[f"class {i}" for i in range(30)])
    _, page = page_of(run)
    assert "The 20 pairs confused most often, of 30 classes" in page.text
    assert "class 0 taken for class 1: 2 of 36" in page.text


def test_identical_layers_are_shown_once(tmp_path: Path) -> None:
    html, _ = page_of(write_study(tmp_path, ["sgd", "adam", "lion"]))
    assert html.count("Multiply-adds") == 1


def test_layers_are_read_as_core_writes_them() -> None:
    table = layer_table(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)), (1, 8, 8))
    assert Record.model_validate_json(json.dumps({"status": "finished", "layers": table.as_json()})).layers == table


def test_missing_figures_and_cut_off_curves_are_harmless(tmp_path: Path) -> None:
    unknown = {"value": None, "low": None, "high": None, "n": 0, "method": "bootstrap", "level": 0.95, "unit": "images"}
    run = write_run(tmp_path, "adam", 0, scores={"test": {"accuracy": unknown, "cross_entropy": unknown}}, per_class=None)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "loss": null}\n[]\n{"epoch": 2, "loss": NaN}\n{"epoch"')
    _, page = page_of(run)
    assert "curves" not in [attrs.get("id") for _, attrs in page.tags]
    assert "nan" not in page.text.lower()


def test_seventy_runs_stay_below_two_megabytes(tmp_path: Path) -> None:
    study = write_study(tmp_path, [f"recipe-{i}" for i in range(7)], seeds=10, epochs=200, pictures=32)
    html, _ = page_of(study)
    assert len(html.encode()) < 2_000_000


@pytest.mark.slow
def test_a_hundred_runs_render_in_seconds(tmp_path: Path) -> None:
    study = write_study(tmp_path, [f"recipe-{i}" for i in range(100)], epochs=50)
    write_report(study)
    start = time.process_time()
    path = write_report(study)
    assert time.process_time() - start < 4
    assert path.stat().st_size < 2_000_000
