"""Classes where functions do: of torch, of timm, and of one's own, for every kind."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from own_files import write
from torch import nn

from stresslens.config import registry
from stresslens.core.errors import ConfigError, Problems

OWN: dict[str, tuple[str, dict[str, Any], Any]] = {
    "datasets": ("def __init__(self, n: int = 3): self.n = n", {"n": 4}, {}),
    "augmentations": ("def __call__(self, x, y, draws): return x + 1, y", {}, {"x": 1, "y": 2, "draws": 3}),
    "models": (
        "def __init__(self, shape, num_classes, width=8): self.given = (shape, num_classes, width)",
        {"width": 16},
        {"shape": (1, 2, 2), "classes": 5},
    ),
    "estimators": ("def __init__(self, seed, *, k: int = 1): self.given = (seed, k)", {"k": 3}, {"seed": 7}),
    "losses": ("def __call__(self, input, target): return input - target", {}, {"logits": 5, "y": 2}),
    "optimizers": (
        "def __init__(self, params, lr=0.1, momentum=0.5): self.given = (params, lr, momentum)",
        {"momentum": 0.9},
        {"parameters": [1], "lr": 0.2},
    ),
    "schedules": (
        "def __init__(self, optimizer, total_steps, gamma=1.0): self.given = (optimizer, total_steps, gamma)",
        {"gamma": 0.5},
        {"optimizer": "o", "steps": 30},
    ),
    "objectives": (
        "def __call__(self, net, inputs, y): return net + inputs + y",
        {},
        {"net": 1, "inputs": 2, "y": 3},
    ),
    "attacks": (
        "def __init__(self, model, eps=0.1): self.model, self.eps = model, eps\n"
        "    def __call__(self, images, labels): return (self.model, self.eps, images, labels)",
        {"eps": 0.3},
        {"model": "m", "x": 1, "y": 2},
    ),
    "audits": ("def __call__(self, table): return table", {}, {"table": 3}),
    "checks": ("def __call__(self, data, pictures): return data + pictures", {}, {"data": 1, "pictures": 2}),
    "corruptions": ("def __call__(self, x, severity): return x * severity", {}, {"x": 2, "severity": 3}),
    "certificates": (
        "def __call__(self, **all): return self.forward(**all)\n"
        "    def forward(self, model, x, y): return model + x + y",
        {},
        {"model": 1, "x": 2, "y": 3},
    ),
    "explainers": (
        "def __call__(self, model, images, labels): return images",
        {},
        {"model": 1, "x": 2, "y": 3},
    ),
    "views": ("def __call__(self, model, *, train): return (model, train)", {}, {"model": 1, "train": 2}),
    "detectors": (
        "def __init__(self, features, labels): self.given = (features, labels)",
        {},
        {"features": 1, "labels": 2},
    ),
    "trackers": (
        "def __init__(self, folder, config): self.given = (folder, config)",
        {},
        {"folder": 1, "config": 2},
    ),
}
"""The body of a class for each kind, options, and what it is called with."""

ANSWERS: dict[str, Any] = {
    "augmentations": (2, 2),
    "models": ((1, 2, 2), 5, 16),
    "estimators": (7, 3),
    "losses": 3,
    "optimizers": ([1], 0.2, 0.9),
    "schedules": ("o", 30, 0.5),
    "objectives": 6,
    "attacks": ("m", 0.3, 1, 2),
    "audits": 3,
    "checks": 3,
    "corruptions": 6,
    "certificates": 6,
    "explainers": 2,
    "views": (1, 2),
    "detectors": (1, 2),
    "trackers": (1, 2),
}


@pytest.mark.parametrize("folder", registry.VOCABULARY)
def test_a_class_of_ones_own(folder: str, tmp_path: Path) -> None:
    body, options, given = OWN[folder]
    write(tmp_path, "mine.py", f"class Mine:\n    {body}\n")
    bound = registry.resolve(folder, {"mine.py:Mine": options}, base=tmp_path)
    answer = bound(**given)
    if folder == "datasets":
        assert answer.n == 4
    else:
        assert getattr(answer, "given", answer) == ANSWERS[folder]
    assert bound.function.__name__ == "Mine"


@pytest.mark.parametrize(
    ("folder", "signature"),
    [
        ("losses", "logits, target"),
        ("losses", "target, logits"),
        ("losses", "labels, pred"),
        ("losses", "y_true, y_pred"),
        ("losses", "target, input"),
        ("losses", "y, x"),
        ("losses", "x, labels"),
        ("losses", "a, b"),
        ("losses", "*, pred, labels"),
        ("losses", "*, y, anything"),
        ("losses", "y, logits, /"),
        ("losses", "target, /, *, logits"),
        ("losses", "a, y, target=None, scores=None"),
        ("attacks", "labels, inputs"),
        ("attacks", "image, label"),
        ("attacks", "y, anything"),
    ],
)
def test_a_call_gets_what_its_parameters_are_called_in_any_order(
    folder: str, signature: str, tmp_path: Path
) -> None:
    made = "" if folder == "losses" else "def __init__(self, model): ...\n    "
    text = f"class Mine:\n    {made}def __call__(self, {signature}): return locals()\n"
    write(tmp_path, "mine.py", text)
    given = {"logits": 1, "y": 2} if folder == "losses" else {"model": "m", "x": 1, "y": 2}
    answer = registry.resolve(folder, "mine.py:Mine", base=tmp_path)(**given)
    names = [name.split("=")[0] for name in signature.split(", ") if name not in "*/"]
    labels = {"y", "target", "labels", "label", "y_true", "b"}
    expected = {name: 2 if name in labels else 1 for name in names}
    if "=" in signature:
        expected |= {"target": None, "scores": None}
    assert {name: answer[name] for name in names} == expected


def test_a_constructor_may_have_parameters_that_are_given_by_position_only(tmp_path: Path) -> None:
    text = """
    class Mine:
        def __init__(self, lr, beta: float = 0.5, gamma: float = 0.25, /, *, params):
            self.given = (lr, beta, gamma, params)
    """
    write(tmp_path, "mine.py", text)
    bound = registry.resolve("optimizers", {"mine.py:Mine": {"gamma": 0.75}}, base=tmp_path)
    assert bound(parameters=[1], lr=0.1).given == (0.1, 0.5, 0.75, [1])


def test_a_loss_of_torch_may_take_the_labels_first(tmp_path: Path) -> None:
    text = """
    from torch import nn

    class Mine(nn.Module):
        def forward(self, target, logits):
            return nn.functional.cross_entropy(logits, target)
    """
    write(tmp_path, "mine.py", text)
    logits, y = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    loss = registry.resolve("losses", "mine.py:Mine", base=tmp_path)(logits=logits, y=y)
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)  # ln 2


PARAMETERS = [nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torch.optim:NAdam", {"weight_decay": 0.01, "betas": [0.8, 0.9]}),
        ("torch.optim:Adagrad", {"lr_decay": 0.1}),
        ("torch.optim:SGD", {"momentum": 0.9, "nesterov": True}),
        ("timm.optim:Lion", {"weight_decay": 0.1}),
    ],
)
def test_an_optimizer_of_a_library(name: str, options: dict[str, Any]) -> None:
    made = registry.resolve("optimizers", {name: options})(parameters=PARAMETERS, lr=0.25)
    assert isinstance(made, torch.optim.Optimizer)
    group = made.param_groups[0]
    assert group["lr"] == 0.25
    assert {key: list(v) if isinstance(v := group[key], tuple) else v for key in options} == options


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torch.nn:CrossEntropyLoss", {"label_smoothing": 0.1}),
        ("torch.nn:MultiMarginLoss", {"margin": 0.5}),
        ("torch.nn:NLLLoss", {}),
    ],
)
def test_a_loss_of_torch(name: str, options: dict[str, Any]) -> None:
    logits, y = torch.randn(5, 3), torch.arange(5) % 3
    expected = getattr(nn, name.rpartition(":")[2])(**options)(logits, y)
    assert torch.equal(registry.resolve("losses", {name: options})(logits=logits, y=y), expected)


def test_schedules_of_torch() -> None:
    optimizer = torch.optim.SGD(PARAMETERS, lr=1.0)
    given = {"optimizer": optimizer, "steps": 10, "steps_per_epoch": 5}
    decay = registry.resolve("schedules", {"torch.optim.lr_scheduler:ExponentialLR": {"gamma": 0.5}})(**given)
    assert decay.gamma == 0.5
    cycle = registry.resolve("schedules", {"torch.optim.lr_scheduler:OneCycleLR": {"max_lr": 0.1}})(**given)
    assert cycle.total_steps == 10


def test_a_model_of_torchvision_gets_the_number_of_classes() -> None:
    with pytest.raises(Problems, match="needs the option 'block'"):
        registry.resolve("models", {"torchvision.models.resnet:ResNet": {"layers": [1, 1, 1, 1]}})
    bound = registry.resolve("models", {"torchvision.models.alexnet:AlexNet": {"dropout": 0.25}})
    net = bound(shape=(3, 64, 64), classes=7, names=None, train=None)
    assert net.classifier[-1].out_features == 7
    assert net.classifier[0].p == 0.25


def test_the_options_of_a_class_are_checked_like_any_other() -> None:
    with pytest.raises(Problems, match=r"has no option 'beta'; did you mean 'betas'\?"):
        registry.resolve("optimizers", {"torch.optim:NAdam": {"beta": [0.1, 0.2]}})
    with pytest.raises(Problems, match="input should be a valid number"):
        registry.resolve("optimizers", {"torch.optim:NAdam": {"eps": "small"}})
    declared = registry.options_of(registry.plugin("optimizers", "torch.optim:NAdam"))
    assert "lr" not in declared
    assert "params" not in declared
    assert inspect.getdoc(torch.optim.NAdam) == registry.plugin("optimizers", "torch.optim:NAdam").__doc__


@pytest.mark.parametrize(
    ("folder", "text", "says"),
    [
        ("losses", "class Mine:\n    pass\n", "Mine cannot be called; it needs a method __call__"),
        ("losses", "class Mine:\n    def __call__(self, *all): ...\n", r"is called with \*all; name its"),
        ("losses", "class Mine:\n    def __call__(self, a, b, c): ...\n", "asks for c when it is called"),
        ("models", "class Mine:\n    def __init__(self, *, width): ...\n", "needs the option 'width'"),
        ("models", "Mine = 3\n", "defines no function 'Mine'"),
    ],
    ids=["no call", "a call with a star", "too many words", "an option without a value", "a number"],
)
def test_a_class_that_does_not_fit_is_refused_in_words(
    folder: str, text: str, says: str, tmp_path: Path
) -> None:
    write(tmp_path, "mine.py", text)
    with pytest.raises(ConfigError, match=says):
        registry.resolve(folder, "mine.py:Mine", base=tmp_path)


def test_a_study_with_classes_trains(tmp_path: Path) -> None:
    import stresslens as sl

    text = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self, shape, classes, width=16):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, classes))

        def forward(self, x):
            return self.layers(x)
    """
    write(tmp_path, "mine.py", text)
    study = tmp_path / "s.yaml"
    study.write_text(
        "data: {digits: {subset: 200}}\nmodel: {mine.py:Net: {width: 8}}\n"
        "train: {epochs: 2, optimizer: {torch.optim:NAdam: {weight_decay: 0.01}}, "
        "loss: {torch.nn:CrossEntropyLoss: {label_smoothing: 0.1}}, precision: float32, threads: 1}\n"
    )
    sl.run(study, out=tmp_path / "runs")
    assert isinstance(sl.load(tmp_path / "runs" / "s" / "run" / "seed-0", trust=True), nn.Module)
