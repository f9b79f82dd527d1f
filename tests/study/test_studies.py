"""Every study file of the project reads, and the quickstart runs from the command line to its report."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stresslens.config import study_file
from stresslens.study import pipeline

SLOW = "mnist-|clip|transfer|photos|digits-(hardening|losses-as)|cifar-"
STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


@pytest.mark.breadth(10)
@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_study_reads_and_says_what_it_expects(file: Path) -> None:
    found = study_file.read_study(file)
    assert found.variants
    assert found.contrasts or len(found.variants) == 1
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert head[0].startswith(f"# stresslens run studies/{file.name}")
    if any("Not measured here" in line for line in head):
        assert re.search(r"needs .*weights", " ".join(head)), (
            "the head comment says what it needs that is not here"
        )
        return
    assert any("about" in line for line in head), "the head comment says how long it takes"
    assert any("Expect (measured" in line for line in head), "the head comment says what was measured"


def photos(folder: Path, labels: Sequence[str] = ("cat", "dog"), count: int = 30) -> None:
    """What a user's own images may be, where a study asks for them."""
    for label in labels:
        (folder / label).mkdir(parents=True)
        for k in range(count):
            pixels = np.random.default_rng([k, ord(label[0])]).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{k}.jpg")


def without_hubs(text: str) -> str:
    """From random weights where a study asks for published ones."""
    return re.sub(r"model\.weights: IMAGENET1K_V\d(, )?|, pretrained: true|, weights: openai", "", text)


def with_small_sizes(text: str) -> str:
    """The sizes of a data-size curve as 100, 200, …, also where contrasts name them."""
    found = re.search(r"sizes: \[([\d, ]+)\]", text)
    small = {size: str(100 * (place + 1)) for place, size in enumerate(found[1].split(", ") if found else ())}
    return re.sub(rf"\b({'|'.join(small)})\b", lambda size: small[size[0]], text) if small else text


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=pytest.mark.slow if re.search(SLOW, file.stem) else ())
        for file in STUDIES
    ],
)
@pytest.mark.filterwarnings("ignore:the net ends in a softmax")  # a run of cifar-first-cnn, on purpose
def test_study_runs_for_a_moment(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = without_hubs(file.read_text())
    labels = [label for found in re.findall(r"classes: \[([\w, ]+)\]", text) for label in found.split(", ")]
    photos(tmp_path / "photos", labels, count=200) if labels else photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    if "{mnist" in text and not os.environ.get("STRESSLENS_DATA"):
        pytest.skip("needs MNIST (STRESSLENS_DATA)")
    text = text.replace("every: 3", "every: 1")
    changes = [
        f"train.epochs={2 if re.search('method: halving|layers: gradual', text) else 1}",
        "train.precision=float32",
    ]
    changes += ["data.subset=600"] * ("\ndata: {mnist" in text) + [
        "data={folder: {path: photos, size: 32}}"
    ] * (bool(re.search(r"data: \{?cifar10", text)))
    changes += ["data.validation=8"] * ("path: photos, validation" in text)
    changes += ["train.subset.images=20"] * ("subset: {images" in text)
    changes += ["data.source=digits", "data.validation=100", "data.subset=600"] * (
        "data: {coloured_mnist" in text
    )
    changes += ["robustness.images=16", "robustness.protocol=[fgsm]", "robustness.audit=false"] * (
        "\nrobustness:" in text
    )
    small = tmp_path / file.name
    small.write_text(with_small_sizes(text))
    (tmp_path / "plugins").symlink_to(file.parent / "plugins")
    found = study_file.read_study(small, changes)
    found.seeds = [0]
    found.sweep = replace(found.sweep, trials=3) if found.sweep else None
    folder = pipeline.run(found, out=tmp_path)
    page = (folder / "report.html").read_text()
    for run in found.variants:
        assert run.name in page
    assert len([*folder.glob("*/seed-0/model.safetensors"), *folder.glob("*/seed-0/estimator.npz")]) == len(
        found.variants
    )
