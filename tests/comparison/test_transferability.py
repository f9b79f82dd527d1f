"""The transfer matrix against passes made by hand over the saved adversarial images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from attacked_study import KEY, attack_run, make_study
from torch import Tensor, nn

import stresslens as sl
from stresslens.comparison import transferability
from stresslens.core.run_folder import RunFolder

MODELS = {"linear": "linear", "mlp": {"mlp": {"widths": [32]}}, "wide": {"mlp": {"widths": [64]}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("transfers"), MODELS)


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


def test_every_cell_by_hand(study: Path) -> None:
    found = transferability.study_transferability(study)
    assert found is not None
    assert found.left_out == []
    (group,) = found.groups
    assert (group.norm, group.protocol, group.eps) == ("linf", "own", 0.1)
    names = list(MODELS)
    assert group.sources == group.targets == names
    for i, source in enumerate(names):
        with np.load(study / source / "seed-0" / "robustness" / KEY / "result.npz") as arrays:
            index, labels = (
                arrays["index"][arrays["rows"]],
                torch.from_numpy(arrays["labels"][arrays["rows"]]),
            )
            images = torch.from_numpy(arrays["adversarials"])
        for j, target in enumerate(names):
            model = sl.load(study / target / "seed-0")
            predicted = RunFolder(study / target / "seed-0").load_predictions("test")
            clean = (predicted["scores"].argmax(1) == predicted["labels"])[index]
            with torch.no_grad():
                right = (model(images).argmax(1) == labels).numpy()
            cell = group.accuracy[i][j]
            assert cell is not None
            assert cell.n == (len(index) if i == j else clean.sum())
            assert cell.value == (0 if i == j else pytest.approx(right[clean].mean()))
    (finding,) = found.findings
    assert finding.status == "no sign"
    json.dumps(found.as_json(), allow_nan=False)


def test_of_many_runs_the_first_seed_of_each_variant_is_used(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transferability, "MOST_RUNS", 2)
    shutil.move(study / "mlp" / "seed-0", study / "mlp" / "seed-7")
    described = json.loads((study / "study.json").read_text())
    own_seeds = {"mlp": [7], "linear": [0], "wide": [0]}
    (study / "study.json").write_text(json.dumps(described | {"seeds": [0, 7], "own_seeds": own_seeds}))
    found = transferability.study_transferability(study)
    assert found is not None
    assert found.groups[0].sources == list(MODELS)


def test_nothing_is_computed_again_until_something_changes(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = transferability.study_transferability(study)
    assert found is not None
    with monkeypatch.context() as patch:
        patch.setattr(transferability, "open_model", lambda *a, **k: pytest.fail("a model was opened"))
        assert transferability.study_transferability(study, known=found.as_json()) == found
    attack_run(study / "mlp" / "seed-0", steps=2)
    again = transferability.study_transferability(study, known=found.as_json())
    assert again is not None
    assert again.fingerprint != found.fingerprint


def replace_weights(study: Path, *, known: bool) -> None:
    """Gives `mlp` the weights of `wide`; its record knows its own weights (`known`), or not, as one of
    version 0.1.0."""
    run = study / "mlp" / "seed-0"
    for name in ("model.safetensors", "model.json"):
        shutil.copy(study / "wide" / "seed-0" / name, run / name)
    record = json.loads((run / "record.json").read_text())
    if not known:
        del record["weights_digest"]
    (run / "record.json").write_text(json.dumps(record))


def test_replaced_weights_that_the_record_knows_are_left_out(study: Path) -> None:
    replace_weights(study, known=True)
    found = transferability.study_transferability(study)
    assert found is not None
    assert "was replaced" in found.left_out[0]


def test_replaced_weights_are_found(study: Path) -> None:
    replace_weights(study, known=False)
    found = transferability.study_transferability(study)
    assert found is not None
    (finding,) = found.findings
    assert (finding.status, finding.severity) == ("sign", "serious")
    assert finding.items[0].startswith("mlp: ")


class Noisy(nn.Module):
    """Answers an image with noise added, fresh at every pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.1 * torch.randn_like(x))
        return logits


@pytest.fixture
def random_study(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models that are random, each attacked as the mean of 20 passes."""
    monkeypatch.setattr(transferability, "open_model", lambda folder, trust: Noisy(sl.load(folder.path)))
    for name in MODELS:
        attack_run(study / name / "seed-0", passes=20, wrap=Noisy)
    return study


@pytest.mark.slow
def test_a_random_model_is_judged_as_it_was_attacked(random_study: Path) -> None:
    found = transferability.study_transferability(random_study)
    assert found is not None
    (finding,) = found.findings
    assert finding.status == "no sign"
    assert finding.evidence.endswith("do, except for what the draws of random models explain")
    (group,) = found.groups
    own = [cell.value for k in range(len(MODELS)) if (cell := group.accuracy[k][k])]
    assert len(own) == len(MODELS)
    assert 0 < max(own) < 0.6  # other draws answer some right that were only just broken
    assert transferability.study_transferability(random_study) == found


@pytest.mark.slow
def test_replaced_weights_of_a_random_model_are_found(random_study: Path) -> None:
    replace_weights(random_study, known=False)
    found = transferability.study_transferability(random_study)
    assert found is not None
    (finding,) = found.findings
    assert (finding.status, finding.severity) == ("sign", "serious")
    assert finding.items[0].startswith("mlp: ")


def test_what_cannot_be_opened_or_compared_is_left_out(study: Path) -> None:
    card = study / "wide" / "seed-0" / "model.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"model": "evil.py:model"}))
    record = study / "mlp" / "seed-0" / "record.json"
    content = json.loads(record.read_text())
    content["data"]["splits"]["test"] = "other"
    record.write_text(json.dumps(content))
    found = transferability.study_transferability(study)
    assert found is not None
    assert "--trust" in found.left_out[0]
    (group,) = found.groups
    assert group.sources == ["linear", "mlp"]
    assert group.accuracy[0][1] is group.accuracy[1][0] is None


def test_a_single_attacked_run_has_no_matrix(study: Path) -> None:
    for name in ("mlp", "wide"):
        shutil.rmtree(study / name / "seed-0" / "robustness")
    assert transferability.study_transferability(study) is None
