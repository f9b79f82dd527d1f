"""What becomes of a claim: it holds, the opposite does, its protocol made it, or it drowns in noise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stresslens.comparison.claims import judged_claims, variants_best_last
from stresslens.comparison.schema import ComparisonFile, Contrast, JudgedClaim, MarginVerdict
from stresslens.config import study_file
from stresslens.config.study_record import StatedClaim, StudyRecord
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation.record import ALL_EPOCHS, DataRecord, RunRecord, TrainingRecord, write_record


def pair(value: float, low: float, high: float, *, real: bool, a: str = "full", b: str = "mini") -> Contrast:
    difference = Estimate(value, low, high, 100, "by hand", unit="both")
    return Contrast(contrast="batches", a=a, b=b, real=real, difference=difference)


PAIRS = [("full", "mini"), ("a", "b"), ("c", "d"), ("e", "f")]
CLAIM = StatedClaim(contrast="batches", claim="mini-batches are better", protocol="published", pairs=PAIRS)


def found(tmp_path: Path, here: list[Contrast], there: list[Contrast] | None = None) -> JudgedClaim:
    if there is not None:
        (tmp_path / "published").mkdir()
        text = json.dumps(ComparisonFile(contrasts=there).as_json())
        (tmp_path / "published" / "comparison.json").write_text(text)
    (result,) = judged_claims([CLAIM], here, tmp_path)
    return result


@pytest.mark.parametrize(
    ("here", "there", "finding", "sentence"),
    [
        (pair(0.03, 0.01, 0.05, real=True), None, "holds", "It holds."),
        (pair(-0.03, -0.05, -0.01, real=True), None, "opposite", "It is contradicted."),
        (pair(0.01, -0.01, 0.03, real=False), None, "noise", "It is inside noise."),
        (
            pair(0.01, -0.01, 0.03, real=False),
            pair(0.02, 0.01, 0.03, real=True),
            "noise",
            "It is inside noise.",
        ),
        (
            pair(0.0, -0.001, 0.001, real=False),
            pair(0.026, 0.009, 0.042, real=True),
            "artefact",
            "It is an artefact of the protocol (full to mini: 2.6 points there, 0.0 (-0.1 to 0.1) here).",
        ),
        (
            pair(0.0, -0.001, 0.001, real=False),
            pair(0.026, -0.009, 0.042, real=False),
            "noise",
            "It is inside noise.",
        ),
        (
            pair(0.022, -0.001, 0.044, real=False),
            pair(0.045, 0.025, 0.064, real=True),
            "partly",
            (
                "It is in part an artefact of the protocol (full to mini: "
                "4.5 points there, 2.2 (-0.1 to 4.4) here)."
            ),
        ),
    ],
)
def test_one_pair(
    tmp_path: Path, here: Contrast, there: Contrast | None, finding: str, sentence: str
) -> None:
    result = found(tmp_path, [here], None if there is None else [there])
    assert result.pairs == [finding]
    assert result.sentence.partition(" Whether its protocol")[0] == sentence


def test_a_claim_of_robust_accuracy_is_judged_by_it() -> None:
    clean, robust = pair(-0.03, -0.05, -0.01, real=True), pair(0.2, 0.1, 0.3, real=True)
    claims = [CLAIM.model_copy(update={"of": of, "protocol": None}) for of in ("accuracy", "robustness")]
    accuracy, robustness = judged_claims(claims, [clean], Path(), robustness=[robust])
    assert (accuracy.of, accuracy.sentence) == ("accuracy", "It is contradicted.")
    assert (robustness.of, robustness.sentence) == ("robustness", "It holds.")
    assert [claim.of for claim in judged_claims(claims, [clean], Path())] == ["accuracy"]


def test_a_claim_says_of_what_only_where_it_is_not_accuracy() -> None:
    assert "of" not in CLAIM.model_dump()
    assert CLAIM.model_copy(update={"of": "robustness"}).model_dump()["of"] == "robustness"


def test_too_few_seeds_are_no_noise(tmp_path: Path) -> None:
    here = pair(0.05, -0.2, 0.3, real=False)
    here.too_few_seeds = True
    result = found(tmp_path, [here])
    assert result.pairs == ["seeds"]
    assert result.sentence.startswith("It is not tested, because the seeds are too few.")


def test_several_pairs_are_counted(tmp_path: Path) -> None:
    here = [
        pair(0.0, -0.001, 0.001, real=False, a="a", b="b"),
        pair(0.0, -0.1, 0.1, real=False, a="c", b="d"),
        pair(0.03, 0.01, 0.05, real=True, a="e", b="f"),
    ]
    result = found(tmp_path, here, [pair(0.026, 0.009, 0.042, real=True, a="a", b="b")])
    assert result.pairs == ["artefact", "noise", "holds"]
    said = [
        f"it {what} for 1 of 3 pairs"
        for what in ("holds", "is an artefact of the protocol", "is inside noise")
    ]
    assert result.sentence.lower().startswith(f"{'; '.join(said)} (a to b: ")


def test_a_contrast_without_pairs_that_were_compared(tmp_path: Path) -> None:
    assert found(tmp_path, []).sentence == "Its runs have not been compared."


def test_claims_of_a_study_file(tmp_path: Path) -> None:
    text = "runs: {a: {model: linear}, b: {model: mlp}}\ncontrasts:\n  depth: {pairs: [[a, b]], %s}\n"
    (tmp_path / "s.yaml").write_text(text % "claim: deeper is better, protocol: other")
    expected = {"contrast": "depth", "claim": "deeper is better", "protocol": "other", "pairs": [["a", "b"]]}
    (claim,) = study_file.read_study(tmp_path / "s.yaml").claims
    assert claim.as_json() == expected
    (tmp_path / "s.yaml").write_text(text % "protocol: other")
    with pytest.raises(ConfigError, match="a protocol belongs to a claim"):
        study_file.read_study(tmp_path / "s.yaml")


def test_one_seed_judges_weights_and_says_so(tmp_path: Path) -> None:
    difference = Estimate(0.05, 0.04, 0.06, 100, "by hand", unit="images")
    made = Contrast(contrast="c", a="x", b="y", difference=difference, real=True)
    claim = StatedClaim(contrast="c", claim="y is better", pairs=[("x", "y")])
    (found,) = judged_claims([claim], [made], tmp_path)
    assert found.sentence == "It holds; one seed each, so of these weights."


ARTEFACT = pair(0.0, -0.001, 0.001, real=False)
THERE = pair(0.026, 0.009, 0.042, real=True)


def renamed(made: Contrast, suffix: str) -> Contrast:
    return made.model_copy(update={"a": made.a + suffix, "b": made.b + suffix})


@pytest.mark.parametrize(
    ("here", "there"),
    [(",train.epochs=20000", ""), ("", ",data.size=8"), (",train.epochs=20000", ",data.size=8")],
)
def test_an_override_does_not_change_the_verdict(tmp_path: Path, here: str, there: str) -> None:
    """The folder's name holds it; the run's own name does not."""
    folder = tmp_path / "published"
    folder.mkdir()
    compared = ComparisonFile(contrasts=[renamed(THERE, there)])
    (folder / "comparison.json").write_text(json.dumps(compared.as_json()))
    names = {f"{name}{there}": name for name in ("full", "mini")}
    (folder / "study.json").write_text(json.dumps(StudyRecord(own_names=names).as_json()))
    made = renamed(ARTEFACT, here)
    claim = CLAIM.model_copy(update={"pairs": [(made.a, made.b)]})
    names = {f"{name}{here}": name for name in ("full", "mini")}
    (found,) = judged_claims([claim], [made], tmp_path, own_names=names)
    assert found.pairs == ["artefact"]
    assert "2.6 points there, 0.0 (-0.1 to 0.1) here" in found.sentence


def test_the_same_override_in_both_studies_is_preferred(tmp_path: Path) -> None:
    suffix = ",train.epochs=9"
    folder = tmp_path / "published"
    folder.mkdir()
    other = pair(0.09, 0.08, 0.1, real=True)
    compared = ComparisonFile(contrasts=[other, renamed(THERE, suffix)])
    (folder / "comparison.json").write_text(json.dumps(compared.as_json()))
    names = {f"{name}{suffix}": name for name in ("full", "mini")}
    made = renamed(ARTEFACT, suffix)
    claim = CLAIM.model_copy(update={"pairs": [(made.a, made.b)]})
    (found,) = judged_claims([claim], [made], tmp_path, own_names=names)
    assert "2.6 points there" in found.sentence


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (None, "the study published was not found in the folder {runs}; run it there."),
        ("{}", "the study published has no contrast 'batches' in {runs}/published."),
        ("not json", "the study published has no comparison in {runs}/published; finish it there."),
    ],
)
def test_what_is_not_found_is_said(tmp_path: Path, there: str | None, said: str) -> None:
    if there is not None:
        (tmp_path / "published").mkdir()
        (tmp_path / "published" / "comparison.json").write_text(there)
    (found,) = judged_claims([CLAIM], [ARTEFACT], tmp_path)
    assert found.pairs == ["noise"]
    assert found.sentence.startswith(
        "It is inside noise. Whether its protocol made the difference is not known: "
    )
    assert found.sentence.endswith(said.format(runs=tmp_path))


def test_a_pair_that_the_other_study_does_not_compare(tmp_path: Path) -> None:
    result = found(tmp_path, [ARTEFACT], [pair(0.026, 0.009, 0.042, real=True, a="a", b="b")])
    assert result.sentence.endswith("the study published does not compare full to mini.")


def test_overrides_leave_the_own_names(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("runs: {a: {model: linear}, b: {model: mlp}}\ngrid: {train.lr: [0.1, 0.2]}\n")
    study = study_file.read_study(file, ["train.epochs=3"])
    assert [name + ",train.epochs=3" for name in study.own_names.values()] == list(study.own_names)
    assert list(study.own_names) == [variant.name for variant in study.variants]


@pytest.mark.parametrize(
    ("unfinished", "said"),
    [
        ([], "It holds for 4 of 4 pairs."),
        (["mini"], "pairs. mini was best in its last epoch: more epochs may change this."),
        (["full", "a"], "pairs. full and a were best in their last epochs: more epochs may change this."),
        (
            [*"abcdef", "full", "mini"],
            " full, mini, a, b, c, d and 2 more were best in their last epochs",
        ),
        (["another"], "It holds for 4 of 4 pairs."),
    ],
)
def test_variants_that_were_best_in_their_last_epoch_are_named(
    unfinished: list[str], said: str, tmp_path: Path
) -> None:
    made = [pair(0.03, 0.01, 0.05, real=True, a=a, b=b) for a, b in PAIRS]
    (result,) = judged_claims([CLAIM], made, tmp_path, unfinished=unfinished)
    assert said in result.sentence
    assert ("more epochs" in result.sentence) == ("more epochs" in said or "2 more" in said)


@pytest.mark.parametrize(
    ("chosen", "stopped", "select", "found"),
    [
        ([5, 5, 2], ALL_EPOCHS, "accuracy", True),
        ([5, 2, 2], ALL_EPOCHS, "accuracy", False),
        ([5, 2], ALL_EPOCHS, "accuracy", False),
        ([5], ALL_EPOCHS, "loss", True),
        ([5], ALL_EPOCHS, "last", False),
        ([5], "no better loss on validation in 20 evaluations", "loss", False),
        ([0], ALL_EPOCHS, "accuracy", False),
    ],
)
def test_which_variants_were_best_in_their_last_epoch(
    chosen: list[int], stopped: str, select: str, found: bool, tmp_path: Path
) -> None:
    seeds = list(range(len(chosen)))
    (tmp_path / "study.json").write_text(json.dumps(StudyRecord(runs=["a"], seeds=seeds).as_json()))
    for seed, epoch in enumerate(chosen):
        training = TrainingRecord(
            epochs=5 if epoch else 0, chosen_epoch=epoch, stopped=stopped, select=select
        )
        folder = RunFolder(tmp_path / "a" / f"seed-{seed}")
        folder.path.mkdir(parents=True)
        record = RunRecord(format=1, status="finished", stages={}, data=DataRecord(), training=training)
        write_record(folder, record)
    assert variants_best_last(tmp_path) == (["a"] if found else [])


def asked(
    low: float,
    high: float,
    *,
    shown: bool = False,
    plan: str | None = None,
    few: bool = False,
    b: str = "mini",
) -> Contrast:
    """A pair that was asked whether it is the same within half a point."""
    made = pair((low + high) / 2, low, high, real=False, b=b)
    interval = None if few else made.difference
    made.same = MarginVerdict(
        kind="same", margin=0.005, shown=shown, p=0.1, p_holm=0.1, interval=interval, too_few_seeds=few,
        verdict="", plan=plan,
    )  # fmt: skip
    return made


SAMENESS = StatedClaim(
    contrast="batches",
    claim="mini-batches are as good",
    of="sameness",
    pairs=[("full", "mini"), ("full", "b")],
)


@pytest.mark.parametrize(
    ("here", "finding", "sentence"),
    [
        (asked(-0.002, 0.003, shown=True), "holds", "Within 0.5 points it holds."),
        (asked(0.006, 0.02), "opposite", "Within 0.5 points it is contradicted."),
        (asked(-0.02, -0.006), "opposite", "Within 0.5 points it is contradicted."),
        (
            asked(-0.02, 0.004, plan="showing it would take 900 images"),
            "unshown",
            "Within 0.5 points it is not shown (showing it would take 900 images).",
        ),
        (
            asked(-0.02, 0.004, few=True),
            "seeds",
            "Within 0.5 points it is not tested, because the seeds are too few.",
        ),
    ],
)
def test_a_claim_of_sameness_is_judged_by_its_margin(here: Contrast, finding: str, sentence: str) -> None:
    (result,) = judged_claims([SAMENESS], [here], Path())
    assert (result.of, result.pairs, result.sentence) == ("sameness", [finding], sentence)


def test_a_claim_of_sameness_of_several_pairs() -> None:
    here = [asked(-0.002, 0.003, shown=True), asked(-0.02, 0.004, plan="more images", b="b")]
    (result,) = judged_claims([SAMENESS], here, Path(), unfinished=["b"])
    assert result.pairs == ["holds", "unshown"]
    assert result.sentence == (
        "Within 0.5 points it holds for 1 of 2 pairs; it is not shown for 1 of 2 pairs "
        "(full and b: more images). b was best in its last epoch: more epochs may change this."
    )
    unasked = pair(0.0, -0.1, 0.1, real=False)
    assert judged_claims([SAMENESS], [unasked], Path())[0].sentence == "Its runs have not been compared."


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("claim: equal", "c.claim_of: the same within what? give the margin in this contrast: same_within"),
        ("same_within: 0.01", "c.claim_of: sameness is what a claim says; give `claim` as well"),
        ("claim: equal, same_within: 0.01, protocol: x", "c.protocol: a protocol explains why one seemed"),
    ],
)
def test_a_claim_of_sameness_needs_its_margin(tmp_path: Path, more: str, said: str) -> None:
    contrast = f"c: {{pairs: [[a, b]], claim_of: sameness, {more}}}"
    runs = "runs: {a: {model: linear}, b: {model: mlp}}"
    (tmp_path / "s.yaml").write_text(f"{runs}\ncontrasts:\n  {contrast}\n")
    with pytest.raises(ConfigError, match=re.escape(said)):
        study_file.read_study(tmp_path / "s.yaml")


def test_a_claim_of_sameness_of_a_study_file(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "runs: {a: {model: linear}, b: {model: mlp}}\ncontrasts:\n"
        "  c: {pairs: [[a, b]], claim: equal, claim_of: sameness, same_within: 0.01}\n"
    )
    study = study_file.read_study(tmp_path / "s.yaml")
    assert study.margins == {"c": 0.01}
    assert study.claims == [StatedClaim(contrast="c", claim="equal", of="sameness", pairs=[("a", "b")])]
