"""The JSON files of attacks, corruptions, certificates, transfers, explanations and views: what is
written is read back equal, old and new names are read alike, and damage is told."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from stresslens.comparison.transfer_file import TransferFile, TransferGroup
from stresslens.core.errors import ConfigError
from stresslens.core.evidence import Trace
from stresslens.core.files import UnreadableRun, write_json
from stresslens.core.json_file import JsonFile, Seconds
from stresslens.core.types import Estimate, Finding
from stresslens.explanation.map_file import ExplainedImage, ExplanationFile, Quality
from stresslens.explanation.view_file import GridPart, LinesPart, PointsPart, ViewFile
from stresslens.metrics.intervals import wilson
from stresslens.robustness.autotune import AttackCompute
from stresslens.robustness.certificate_file import CertificateFile, CertifiedLevel
from stresslens.robustness.corruption_file import CorruptionFile, CorruptionLevels, SeverityLevel
from stresslens.robustness.example_file import AdversarialExample
from stresslens.robustness.result_file import (
    AttackCost,
    CurveLevel,
    DescribedAttack,
    IndividualAttackCurve,
    IndividualAttackRow,
    ResultFile,
)

MADE_BEFORE = Path(__file__).parents[1] / "made_before"
SHARE = wilson(3, 7)
FINDING = Finding("zero gradients", "sign", "serious", "2 of 7", 7, "attack the logits", ("image 3",))
ROW = IndividualAttackRow(eps=0.1, accuracy=SHARE, top5=SHARE, valid=SHARE, outside=1, silent=2)
TRACE = Trace("pgd", {"steps": 20}, 0.1, 7, broke=4, excess=math.inf, gradients=140)

FILES: list[JsonFile] = [
    ResultFile(
        version="0.2.0",
        key="linf-fast-0a1b2c3d",
        fingerprint="f",
        norm="linf",
        radii=[0.0, 0.1],
        protocol="fast",
        attacks=[DescribedAttack(name="pgd", label="pgd 20", options={"steps": 20})],
        n=7,
        asked=7,
        target="least_likely",
        classes=10,
        clean=SHARE,
        reported_clean=3 / 7,
        curve=[CurveLevel(eps=0.1, robust=SHARE, newly_broken_by={"pgd 20": 2})],
        individual_attacks=[
            IndividualAttackCurve(
                name="fgsm", label="fgsm", attack={"fgsm": {"targets": 3}}, target=3, rows=[ROW]
            )
        ],
        findings=[FINDING],
        audited=True,
        traces=[TRACE],
        compute=AttackCompute("bfloat16", "channels_last", 2, 256, 20, 0.001),
        cost=AttackCost(seconds=1.5, forwards=200, gradients=140, audit_seconds=0.5),
        settings={"images": 7, "bpda": ["features.0"], "alone": [["fgsm", "fgsm", 3, [0.1]]]},
    ),
    CertificateFile(
        fingerprint="f",
        certificate="smoothing",
        options={"sigma": 0.25},
        n=7,
        abstained=1,
        curve=[CertifiedLevel(radius=0.25, certified=SHARE)],
        smoothed_accuracy=SHARE,
        cost=Seconds(seconds=2.0),
    ),
    CorruptionFile(
        fingerprint="f",
        n=7,
        clean=SHARE,
        corruptions=[CorruptionLevels(name="fog", severities=[SeverityLevel(severity=1, accuracy=SHARE)])],
        mean=SHARE,
    ),
    AdversarialExample(
        kind="ladder",
        index=3,
        truth=1,
        clean_prediction=1,
        clean_confidence=0.9,
        prediction=2,
        confidence=0.6,
        eps=0.1,
        size=0.1,
        steps=4,
        attack="pgd",
        file="pictures.png",
        original=(0, 0, 8, 8),
        change=(8, 0, 8, 8),
        adversarial=(16, 0, 8, 8),
        scale=5.0,
    ),
    TransferFile(
        fingerprint="f",
        groups=[
            TransferGroup(
                norm="l2",
                protocol="own",
                eps=0.5,
                sources=["a", "b"],
                targets=["a", "b"],
                accuracy=[[SHARE, None], [SHARE, SHARE]],
            )
        ],
        left_out=["own: not run unless --trust"],
        findings=[FINDING],
    ),
    ExplanationFile(
        fingerprint="f",
        explainer="occlusion",
        options={"size": 3},
        split="test",
        choose=[3, 17],
        answer="predicted",
        unit="probability",
        signed=True,
        limit=0.5,
        notes=["a note"],
        images=[
            ExplainedImage(
                index=3, predicted=1, probability=0.9, answer=2, answer_probability=0.05, source="a.png"
            ),
            ExplainedImage(index=17, truth=1, predicted=1, probability=0.9, answer=1, answer_probability=0.9),
        ],
        quality=Quality(checks={"deletion": SHARE}, each={"deletion": [0.1, -0.2]}, failed=["insertion"]),
    ),
    ViewFile(
        fingerprint="f",
        view="embedding",
        said=["seven points"],
        facts={"shares": [0.1, 0.2]},
        parts=[
            GridPart(title="filters", file="grid-1.svg", captions=[["one", None]]),
            PointsPart(title="points", places=[(0.5, -1.0)], groups=["zero"], wrong=[True]),
            LinesPart(title="lines", x_label="step", y_label="cost", lines={"zero": [(1.0, 0.5)]}),
        ],
    ),
]


@pytest.mark.parametrize("written", FILES, ids=lambda file: type(file).__name__)
def test_what_is_written_is_read_back_equal(written: JsonFile, tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", written.as_json())
    read = type(written).read(tmp_path / "result.json")
    assert read == written
    assert json.dumps(read.as_json()) == json.dumps(written.as_json())


def test_what_is_not_finite_is_null_and_comes_back() -> None:
    unknown = wilson(0, 0)
    values = CorruptionFile(n=0, clean=unknown).as_json()
    assert values["clean"]["value"] is None
    read = CorruptionFile.model_validate(values).clean
    assert isinstance(read, Estimate)
    assert math.isnan(read.value)
    assert (read.low, read.high) == (unknown.low, unknown.high)


@pytest.mark.parametrize("written", [FILES[0], FILES[5]], ids=lambda file: type(file).__name__)
def test_old_keys_are_written_beside_the_new_ones_and_read_alone(written: JsonFile) -> None:
    values, old = written.as_json(), type(written).OLD_KEYS
    assert old
    assert all(values[name] == values[new] for new, name in old.items())
    before = {name: value for name, value in values.items() if name not in old}
    after = {name: value for name, value in values.items() if name not in old.values()}
    assert type(written).model_validate(before) == type(written).model_validate(after) == written


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("**/robustness/*/result.json", ResultFile),
        ("own/*/result.json", ResultFile),
        ("**/explanations/*/result.json", ExplanationFile),
        ("**/views/*/result.json", ViewFile),
    ],
)
def test_what_version_0_1_0_wrote_is_kept_byte_by_byte(
    pattern: str, kind: type[JsonFile], tmp_path: Path
) -> None:
    files = sorted(MADE_BEFORE.glob(pattern))
    assert files
    for file in files:
        values = kind.read(file).as_json()
        old = {new: values.pop(name) for new, name in kind.OLD_KEYS.items()}
        assert all(values[new] == value for new, value in old.items())
        names = dict(kind.OLD_KEYS)
        write_json(tmp_path / "again.json", {names.get(name, name): value for name, value in values.items()})
        assert (tmp_path / "again.json").read_bytes() == file.read_bytes()


def test_the_examples_of_version_0_1_0_are_kept_byte_by_byte(tmp_path: Path) -> None:
    (file,) = MADE_BEFORE.glob("**/robustness/*/examples/examples.json")
    entries = [AdversarialExample.model_validate(entry) for entry in json.loads(file.read_text())]
    write_json(tmp_path / "again.json", [entry.as_json() for entry in entries])
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()


def test_keys_of_a_later_version_are_left_alone() -> None:
    for file in FILES:
        assert type(file).model_validate(file.as_json() | {"from_later": 1}) == file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"n": 7', "cannot be read as JSON"),
        ('{"format": 2, "n": 7}', r"result\.json: format: "),
        ("{}", r"result\.json: n: Field required"),
    ],
)
def test_damage_is_told_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UnreadableRun, match=message):
        CorruptionFile.read(tmp_path / "result.json")
    with pytest.raises(ConfigError, match="there is no"):
        CorruptionFile.read(tmp_path / "absent.json")
