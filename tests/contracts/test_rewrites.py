"""Every step that rewrites, copies or reads a model by its types, on awkward modules: it computes
the user's function or refuses in words, and leaves the module as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from awkward_modules import AWKWARD, CLASSES, SHAPE, OwnSequential, build
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.attack_base import attacked
from stresslens.core.copies import check_copy, copied, departure, eager_module, fast_copy, quick, responses
from stresslens.core.data import Data
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import ConfigError, Notice, StresslensError
from stresslens.core.inspection import evaluating, to_evaluation_mode
from stresslens.core.layers import Normalize, with_input_layers
from stresslens.core.pool_order import PooledFirst, pool_first
from stresslens.plugins.certificates.interval import interval
from stresslens.robustness.autotune import AttackCompute
from stresslens.training.linear_probe import fit_linear_probe
from stresslens.training.moving_average import moving_average
from stresslens.training.setup import laid_out

# torch.compile reads .grad of the images, which are no leaf
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
every = pytest.mark.parametrize("name", AWKWARD)
Step = Callable[[nn.Module, Tensor], nn.Module]


@pytest.fixture(autouse=True)
def _short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stresslens.robustness.autotune.PROBE_SECONDS", 1e-9)
    monkeypatch.setattr("stresslens.core.devices.PROBE_SECONDS", 1e-9)


def images(n: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


def dtype_of(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)


def evaluated(name: str) -> nn.Module:
    model = build(name)
    to_evaluation_mode(model)
    return model


def data(n: int = 36) -> Data:
    x, y = images(n), torch.arange(n) % CLASSES
    return Data.from_arrays(x, y, classes=list("abc"), validation=0.25, test=0.25)


def state(model: nn.Module) -> list[Any]:
    """What a user can see of a module: tensors, modes, hooks, requires_grad, classes."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [
        [list(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        for m in model.modules()
    ]
    return [
        tensors,
        [(type(m), m.training, "forward" in vars(m)) for m in model.modules()],
        hooks,
        [p.requires_grad for p in model.parameters()],
    ]


def same(before: list[Any], after: list[Any]) -> bool:
    tensors, others = before[0], after[0]
    return (
        before[1:] == after[1:]
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[name], others[name]) for name in tensors)
    )


@contextmanager
def with_notices() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (Notice, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        yield


def _laid_out(memory_format: Any) -> Step:
    def step(model: nn.Module, x: Tensor) -> nn.Module:
        net = _checked(eager_module(model), x)
        front = with_input_layers(net, Normalize(torch.ones(1, 1, 1), torch.zeros(1, 1, 1)))
        precision: Any = str(x.dtype).removeprefix("torch.")
        return laid_out(front, ComputeConfig("cpu", precision, 1, memory_format), data())

    return step


def _channels_last(model: nn.Module, x: Tensor) -> nn.Module:
    return fast_copy(model, x, memory_format=torch.channels_last)


def _pooled(model: nn.Module, x: Tensor) -> nn.Module:
    copy = copied(model)
    pool_first(copy)
    check_copy(model, copy, x)
    return copy


def _checked(model: nn.Module, x: Tensor) -> nn.Module:
    copy = copied(model)
    check_copy(model, copy, x)
    return copy


def _averaged(model: nn.Module, x: Tensor) -> nn.Module:
    average = moving_average(_checked(model, x), 0.9)
    average.update_parameters(model)
    return average.module


STEPS: dict[str, Step] = {
    "without torch.compile": lambda model, x: eager_module(model),
    "checked copy": _checked,
    "pooling before relu": _pooled,
    "faster copy": fast_copy,
    "faster copy, channels last": _channels_last,
    "copy for many passes": lambda model, x: quick(model, x),
    "attack": lambda model, x: AttackCompute().model(model, x),
    "attack, channels last": lambda model, x: AttackCompute(memory_format="channels_last").model(model, x),
    "training": _laid_out("contiguous"),
    "training, channels last": _laid_out("channels_last"),
    "moving average": _averaged,
}


@every
@pytest.mark.parametrize("step", STEPS)
def test_a_rewritten_module_computes_the_same_or_is_refused(name: str, step: str) -> None:
    model = evaluated(name)
    x = images(dtype=dtype_of(model))
    expected = responses(evaluated(name), x)
    before = state(model)
    with with_notices():
        try:
            changed = STEPS[step](model, x)
        except ConfigError:
            changed = model
        to_evaluation_mode(changed)
        found = responses(changed, x)
        gradients_of_input = [_of_input(each) for each in (expected, found)]
        assert not departure(*gradients_of_input)
    assert same(before, state(model))
    assert not departure(expected, responses(model, x))


def _of_input(found: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [
        {k: v for k, v in each.items() if k.startswith("output") or k == "gradient of the images"}
        for each in found
    ]


def test_the_steps_are_in_use_where_they_are_safe() -> None:
    x = images()
    for name in (
        "plain",
        "in-place relu",
        "batch norm",
        "shared relu and pool",
        "tapped by slice",
        "dropout",
    ):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            copy = fast_copy(evaluated(name), x, memory_format=memory_format)
            assert any(isinstance(module, PooledFirst) for module in copy.modules())


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("kept by a closure", "gradient"),
        ("forward replaced by a closure", "gradient"),
        ("keeps text features", "gradient of proj.weight"),
        ("copy is itself", "same parameters"),
    ],
)
def test_a_copy_that_is_another_function_is_refused_by_name(name: str, refused: str) -> None:
    model, x = build(name), images()
    with pytest.raises(ConfigError, match=type(eager_module(model)).__name__) as error:
        _checked(model, x)
    assert refused in str(error.value) or "attribute 'seen'" in str(error.value)


@pytest.mark.parametrize("name", ["view", "as_strided", "asks for the memory layout"])
def test_another_memory_layout_is_noticed(name: str) -> None:
    model, x = evaluated(name), images()
    with pytest.raises(ConfigError, match="does not compute the same"):
        _channels_last(model, x)
    with pytest.warns(Notice, match="used as it is"):
        assert quick(model, x) is model
    with pytest.raises(ConfigError, match=r"memory_format: channels_last.*contiguous"):
        _laid_out("channels_last")(model, x)


@every
def test_contexts_leave_the_module_and_the_images_as_they_were(name: str) -> None:
    for frozen in (attacked, evaluating):
        model = build(name)
        x = images(dtype=dtype_of(model))
        before, pixels = state(model), x.clone()
        with frozen(model), torch.no_grad():
            first, second = model(x), model(x)
        assert torch.equal(x, pixels)
        assert torch.allclose(first, second, atol=1e-6)
        if name != "buffers" or frozen is attacked:
            assert same(before, state(model))


# --- proofs -------------------------------------------------------------------------------------------------

CERTIFIED = {
    "plain",
    "shared relu",
    "shared pool",
    "shared relu and pool",
    "shared convolution",
    "backward hook",
    "backward pre-hook",
    "parametrised",
    "weight norm",
    "spectral norm",
    "orthogonal",
    "in-place relu",
    "in-place relu of the input",
    "compiled",
    "nested Sequential",
    "dropout",
    "batch norm",
    "frozen batch norm",
    "overlapping pool",
    "pool with ceil",
    "partly frozen",
    "lazy",
    "channels last",
    "float64",
}
"""The modules that interval bounds know exactly; the others are refused."""


@every
def test_an_interval_radius_holds_or_the_module_is_refused(name: str) -> None:
    model = evaluated(name)
    x = images(8, dtype_of(model))
    before = state(model)
    with attacked(model):
        y = model(x).argmax(1)
        try:
            radius = interval(model, x, y)
        except ConfigError as error:
            refused = str(error)
        else:
            refused = ""
        assert bool(refused) == (name not in CERTIFIED)
        if refused:
            assert refused.startswith("interval bounds do not support the layer")
        else:
            assert (radius > 0).all()
            for seed in range(20):
                noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.dtype) - 0.5
                near = (x + radius.to(x).reshape(-1, 1, 1, 1) * noise.sign()).clamp(0, 1)
                assert (model(near).argmax(1) == y).all()
    assert same(before, state(model))


def test_bounds_that_the_model_leaves_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check at points of the ball finds a layer that no rule about classes knows of."""
    monkeypatch.setattr("stresslens.plugins.certificates.interval._reason_against", lambda module: "")
    model = build("linear subclass").eval()
    x = images()
    wrong = build("hook changes the linear layer").eval()
    for net in (wrong, build("forward of the relu replaced").eval()):
        with attacked(net), pytest.raises(ConfigError, match="contradict the model"):
            interval(net, x, net(x).argmax(1))
    assert model


@pytest.mark.parametrize(
    ("name", "words"),
    [("batch norm without statistics", "depend on the other images"), ("dropout", "is random")],
)
def test_smoothing_needs_independent_votes(name: str, words: str) -> None:
    from stresslens.core.draws import Draws
    from stresslens.plugins.certificates.smoothing import smoothing

    model, x = build(name), images()
    y = torch.zeros(len(x), dtype=torch.int64)
    with torch.no_grad(), pytest.raises(ConfigError, match=words):
        smoothing(model.train(), x, y, Draws(0, torch.arange(len(x))), n0=10, n=20)


# --- a linear probe -----------------------------------------------------------------------------------------


@every
def test_a_linear_probe_fits_what_gives_the_logits_or_refuses(name: str) -> None:
    model = eager_module(build(name))
    if not any(True for _ in model.parameters()):
        return
    net = model.float()
    front = with_input_layers(net, Normalize(torch.ones(1, 1, 1), torch.zeros(1, 1, 1)))
    split = data()
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


# --- the public functions -----------------------------------------------------------------------------------


def plain_logits(name: str, x: Tensor) -> Tensor:
    model = evaluated(name)
    with torch.no_grad():
        return torch.cat([model(one.clone().to(dtype_of(model))) for one in x.split(len(x))]).float()


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
            assert run.model()(images()).shape == (6, CLASSES)
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
    from stresslens.robustness.certify import certify
    from stresslens.robustness.corrupt import corrupt

    split = data().train
    images_before = split.images.clone()
    accuracy = float((plain_logits(name, split.images.float()).argmax(1) == split.labels).double().mean())
    result = corrupt(tmp_path / "c", build(name), split, ["brightness"], source="a", base=tmp_path)
    assert result.clean.value == pytest.approx(accuracy)
    certify(tmp_path, build(name), split, [{"smoothing": {"n": 20, "n0": 5}}], source="a", base=tmp_path)
    assert torch.equal(split.images, images_before)


@pytest.mark.parametrize("name", ["view", "as_strided", "scatter", "asks for the memory layout"])
def test_a_configuration_in_which_a_net_computes_something_else_is_not_chosen(name: str) -> None:
    from stresslens.core.devices import ComputeConfig, measure_compute

    def step(model: nn.Module, way: ComputeConfig) -> None:
        x = images(8).to(dtype=way.dtype, memory_format=way.layout)
        with way.autocast():
            model(x).float().logsumexp(1).sum().backward()

    plain, last = (ComputeConfig("cpu", "float32", 1, each) for each in ("contiguous", "channels_last"))
    half = ComputeConfig("cpu", "bfloat16", 1, "contiguous")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stresslens.core.devices.SMALL_STEP", 0.0)
        tried = measure_compute(build(name), step, [plain, last, half], images(4))
    assert plain in tried
    assert (last in tried) == (name == "scatter")
    assert (half in tried) == (name != "scatter")


@pytest.mark.parametrize("name", ["relu subclass", "hook", "forward", "Sequential subclass"])
def test_gradients_by_hand_are_for_plain_layers_only(name: str) -> None:
    from stresslens.plugins.objectives.by_hand import by_hand

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
