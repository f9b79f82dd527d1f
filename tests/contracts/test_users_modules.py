"""The public functions on awkward modules: they ask the user's function, or refuse in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from awkward_modules import EVERY, build
from derived_layers import OwnSequential
from forward_passes import CLASSES
from module_state import data, dtype_of, evaluated, images, same, state, with_notices
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.copies import eager_module
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.inspection import evaluating
from stresslens.core.layers import Normalize, check_output, with_input_layers
from stresslens.core.outputs import logits_in
from stresslens.plugins.objectives.by_hand import by_hand
from stresslens.robustness.certify import certify
from stresslens.robustness.corrupt import corrupt
from stresslens.training.linear_probe import fit_linear_probe

# torch.compile reads .grad of the images, which are no leaf
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
every = pytest.mark.parametrize("name", EVERY)


@pytest.mark.breadth(17)
@every
def test_a_linear_probe_fits_what_gives_the_logits_or_refuses(name: str) -> None:
    model = eager_module(build(name))
    if not any(True for _ in model.parameters()):
        return
    net = model.float()
    front = with_input_layers(net, Normalize(torch.ones(1, 1, 1), torch.zeros(1, 1, 1)))
    split = data()
    check_output(front, data().shape, CLASSES, name)
    try:
        fit_linear_probe(front, split, [0.01])
    except ConfigError:
        return  # see the next test for the words
    with evaluating(front), torch.no_grad():
        logits = front(split.train.floats(split.train.images[:]).float())
    loss = torch.nn.functional.cross_entropy(logits, split.train.labels)
    assert float(loss) < 1.11  # log 3 is what constant logits give


def test_a_linear_probe_refuses_logits_that_another_step_makes() -> None:
    for name in ("linear subclass", "hook changes the linear layer", "plain tensors", "weight norm"):
        front = with_input_layers(build(name), Normalize(torch.ones(1, 1, 1), torch.zeros(1, 1, 1)))
        with pytest.raises(ConfigError, match=r"fine_tune\.layers: probe"):
            fit_linear_probe(front, data(), [0.01])


def plain_logits(name: str, x: Tensor) -> Tensor:
    model = evaluated(name)
    with torch.no_grad():
        return logits_in(model(x.clone().to(dtype_of(model))), model).float()


@pytest.mark.breadth(8)
@every
def test_evaluate_predict_and_attack_ask_the_users_function(name: str) -> None:
    x = images(12)
    y = torch.arange(12) % CLASSES
    logits = plain_logits(name, x)
    accuracy = float((logits.argmax(1) == y).double().mean())
    model, pixels = build(name), x.clone()
    before = state(model)
    with with_notices():
        assert sl.evaluate(model, x, y)["accuracy"].value == pytest.approx(accuracy)
        found = torch.from_numpy(sl.predict(model, x)).float()
        assert torch.allclose(found, logits.softmax(1), atol=1e-4)
        result = sl.attack(model, x, y, radii=[0.3], protocol=[{"pgd": {"steps": 2}}], audit=False)
        assert result.facts["clean"]["value"] == pytest.approx(accuracy)
        counted = sl.verify(model, x, x, y, eps=0.1)
        assert counted.clean.value == pytest.approx(accuracy)
    assert torch.equal(x, pixels)
    if name not in ("buffers", "plain tensors"):
        assert same(before, state(model))


NOT_TRAINED = {
    "copy is itself": "cannot be copied",
    "forward of the Sequential replaced": "a copy of Net computes another function",
    "forward replaced by a closure": "a copy of Net computes another function",
    "hidden list": "no parameters to train",
    "keeps text features": "gradient of proj.weight differs",
    "kept by a closure": "a copy of Net computes another function",
    "kept of the convolution by a closure": "a copy of Net computes another function",
    "no parameters": "no parameters to train",
}
"""What cannot be trained on a copy, and the words that say so."""
DEPENDS_ON_THE_BATCH = {"batch norm without statistics"}
"""What answers an image otherwise beside other images: an export of it cannot be checked."""


@pytest.mark.slow
@every
def test_a_module_is_trained_or_refused_in_words(name: str, tmp_path: Path) -> None:
    model = build(name)
    before = state(model)
    with with_notices():
        if name in NOT_TRAINED:
            with pytest.raises(StresslensError, match=NOT_TRAINED[name]):
                sl.train(model, data(), epochs=1, out=tmp_path)
        else:
            run = sl.train(model, data(), epochs=2, ema=0.5, batch_size=8, out=tmp_path)
            assert "accuracy" in run.scores("test")
            trained = run.model()(images())
            assert trained.shape == (6, CLASSES)
            assert torch.equal(sl.load(run.folder, module=model)(images()), trained)
            if name in DEPENDS_ON_THE_BATCH:
                with pytest.raises(StresslensError, match="its logits differ from the run's"):
                    sl.export(run, "safetensors", out=tmp_path / "export")
            else:
                kept = sl.export(run, "safetensors", out=tmp_path / "export")
                assert torch.equal(sl.load(kept.file, module=model)(images()), trained)
    assert same(before, state(model))


@pytest.mark.slow
@every
def test_a_module_is_explained_and_checked_or_refused_in_words(name: str) -> None:
    model, x = evaluated(name), images(4)
    before, pixels = state(model), x.clone()
    with with_notices():
        for explainer in ({"occlusion": {"size": 3, "stride": 2}}, "saliency"):
            found = sl.explain(model, x, explainer, check=True)
            assert found.maps.shape == (4, 8, 8)
    assert torch.equal(x, pixels)
    if name not in ("buffers", "plain tensors"):
        assert same(before, state(model))


@pytest.mark.breadth(1)
@pytest.mark.parametrize("name", ["input scaled in place", "input scaled through data", "input clamped"])
def test_training_in_place_does_not_wear_the_training_images_out(name: str, tmp_path: Path) -> None:
    """Every epoch of one batch sees the same images as a net does that copies them first."""

    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build(name)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x.clone())
            return out

    options: dict[str, Any] = {
        "epochs": 6,
        "select": "last",
        "batch_size": "full",
        "lr": 0.05,
        "precision": "float32",
    }
    split = data()
    before = split.train.images.clone()
    trained = [
        sl.train(net, split, out=tmp_path, name=kind, memory_format="contiguous", threads=1, **options)
        for kind, net in (("itself", build(name)), ("copies", Copies()))
    ]
    first, second = (list(run.model().get_submodule("net").parameters()) for run in trained)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(split.train.images, before)


@pytest.mark.parametrize("name", ["input scaled in place", "input written in a corner"])
def test_corruptions_and_certificates_judge_the_right_images(name: str, tmp_path: Path) -> None:
    split = data().train
    images_before = split.images.clone()
    accuracy = float((plain_logits(name, split.images.float()).argmax(1) == split.labels).double().mean())
    result = corrupt(tmp_path / "c", build(name), split, ["brightness"], source="a", base=tmp_path)
    assert result.clean.value == pytest.approx(accuracy)
    certify(tmp_path, build(name), split, [{"smoothing": {"n": 20, "n0": 5}}], source="a", base=tmp_path)
    assert torch.equal(split.images, images_before)


@pytest.mark.parametrize("name", ["relu subclass", "hook", "forward", "Sequential subclass"])
def test_gradients_by_hand_are_for_plain_layers_only(name: str) -> None:
    class Own(nn.ReLU):
        pass

    made: list[nn.Module] = [nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, CLASSES)]
    y = torch.zeros(6, dtype=torch.int64)
    assert float(by_hand(nn.Sequential(*made), images(), y)) > 0
    if name == "relu subclass":
        made[2] = Own()
    net = OwnSequential(*made) if name == "Sequential subclass" else nn.Sequential(*made)
    if name == "hook":
        net[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    if name == "forward":
        net.forward = lambda x: nn.Sequential.forward(net, x) * 2  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="by_hand"):
        by_hand(net, images(), y)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("options", [{"epochs": 0}, {"fine_tune": {"layers": "probe"}}, {"epochs": 1}])
def test_a_layer_under_two_names_is_kept_however_it_was_trained(
    options: dict[str, Any], tmp_path: Path
) -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(64, 64)
            self.again, self.head = self.first, nn.Linear(64, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.again(self.first(x.flatten(1)).relu()))
            return out

    run = sl.train(Same(), data(), out=tmp_path, **options)
    net: Any = run.model().get_submodule("net")
    assert net.first is net.again
    assert net(images()).shape == (6, CLASSES)
