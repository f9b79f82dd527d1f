"""Fine-tuning: which layers move, how fast, and that what is frozen stays as it came, statistics of
batch norm included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import FineTune
from stresslens.config.study_file import read_study
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.layers import Normalize, with_input_layers
from stresslens.core.run_folder import RunFolder
from stresslens.core.weights_file import read_state
from stresslens.evaluation.saved_model import open_model
from stresslens.study import stages
from stresslens.training.fine_tuning import FineTuning, blocks_of
from stresslens.training.linear_probe import fit_linear_probe
from stresslens.training.setup import build_model, load_initial_weights
from stresslens.training.task import Task

CNN = {"simple_cnn": {"batch_norm": True, "channels": 4, "hidden": 16}}


def model_of(value: Any, shape: tuple[int, int, int] = (1, 8, 8)) -> nn.Sequential:
    torch.manual_seed(0)
    net = registry.resolve("models", value)(shape=shape, classes=10, names=[str(k) for k in range(10)])
    return with_input_layers(net, Normalize.by_moments([0.5] * shape[0], [0.5] * shape[0]))


def names_of(model: nn.Sequential, blocks: list[list[nn.Parameter]]) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in model.get_submodule("net").named_parameters()}
    return [[names[id(parameter)] for parameter in block] for block in blocks]


@pytest.mark.breadth(3)
@pytest.mark.parametrize(
    ("value", "shape", "firsts"),
    [
        (CNN, (1, 8, 8), ["0.weight", "4.weight", "9.weight", "12.weight"]),
        (
            {"vit": {"depth": 2, "width": 16, "heads": 2, "mlp": 8}},
            (1, 8, 8),
            ["0.token", "2.norm1.weight", "3.norm1.weight", "6.weight"],
        ),
        (
            {"torchvision": {"name": "resnet18"}},
            (3, 32, 32),
            [
                "conv1.weight",
                *(f"layer{k}.{j}.conv1.weight" for k in (1, 2, 3, 4) for j in (0, 1)),
                "fc.weight",
            ],
        ),
        ({"torchvision": {"name": "vit_b_32"}}, (3, 32, 32), None),
        ({"timm": {"name": "test_efficientnet"}}, (3, 32, 32), None),
    ],
    ids=["cnn", "vit", "resnet18", "vit_b_32", "efficientnet"],
)
def test_blocks_follow_the_image_through_the_net(
    value: Any, shape: tuple[int, int, int], firsts: list[str] | None
) -> None:
    model = model_of(value, shape)
    blocks = names_of(model, blocks_of(model, shape))
    assert sorted(name for block in blocks for name in block) == sorted(
        name for name, _ in model.net.named_parameters()
    )  # type: ignore[union-attr]
    if firsts is not None:
        assert [block[0] for block in blocks] == firsts
    assert len(blocks[-1]) == 2
    assert all(
        "encoder_layer_3" in name
        for block in blocks
        for name in block
        if block[0].startswith("encoder.layers.encoder_layer_3")
    )


def test_rates_fall_from_the_head_to_the_image() -> None:
    tuning = FineTuning(model_of(CNN), FineTune(layer_decay=0.5, head_lr_scale=10), (1, 8, 8))
    groups = tuning.parameters(0.8)
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.2, 0.4, 8.0])  # type: ignore[index]
    assert [len(group["params"]) for group in groups] == [4, 4, 4, 2]  # type: ignore[index]


def test_gradual_frees_a_block_at_a_time_from_the_head_down() -> None:
    model = model_of(CNN)
    tuning = FineTuning(model, FineTune(layers="gradual", unfreeze_every=2), (1, 8, 8))
    free = []
    for epoch in range(8):
        tuning.begin(epoch)
        free.append([all(p.requires_grad for p in block) for block in tuning.blocks])
        for module in model.modules():
            own = [p.requires_grad for p in module.parameters()]
            assert module.training == any(own) or not own
    assert [sum(each) for each in free] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert all(each == sorted(each) for each in free)


@pytest.fixture
def source(task_of: Callable[..., Task], tmp_path: Any) -> RunFolder:
    task = task_of(CNN, folder=tmp_path / "study" / "first" / "seed-0", epochs=1)
    stages.carry_out(task)
    return RunFolder(task.folder)


def tuned(
    task_of: Callable[..., Task], source: RunFolder, tune: dict[str, Any], **train: Any
) -> tuple[dict[str, Tensor], Any]:
    name = "-".join(map(str, tune.values()))
    options = {**CNN["simple_cnn"], "weights": {"run": str(source.path), "head": "new"}}
    task = task_of(
        {"simple_cnn": options},
        folder=source.path.parents[1] / name / "seed-0",
        fine_tune=tune,
        select="last",
        **train,
    )
    record = stages.carry_out(task)
    return read_state(RunFolder(task.folder).weights), record


def test_a_frozen_net_stays_bit_for_bit_and_its_head_learns(
    source: RunFolder, task_of: Callable[..., Task]
) -> None:
    before = read_state(source.weights)
    after, _ = tuned(task_of, source, {"layers": "head"}, epochs=2)
    for name, value in after.items():
        assert torch.equal(value, before[name]) == (not name.startswith("12.")), name


def test_batch_norm_keeps_its_statistics_where_asked(source: RunFolder, task_of: Callable[..., Task]) -> None:
    before = read_state(source.weights)
    kept, _ = tuned(task_of, source, {"batch_norm": "keep"}, epochs=1)
    moved, _ = tuned(task_of, source, {"batch_norm": "train"}, epochs=1)
    statistics = [name for name in before if "running" in name or "batches" in name]
    assert len(statistics) == 9
    assert all(torch.equal(kept[name], before[name]) for name in statistics)
    assert not any(torch.equal(moved[name], before[name]) for name in statistics)
    assert not torch.equal(kept["1.weight"], before["1.weight"])


@pytest.mark.slow
def test_gradual_training_stopped_and_resumed_gives_the_same_bits(
    source: RunFolder, task_of: Callable[..., Task]
) -> None:
    from stresslens.training import distributed
    from stresslens.training.task import load_data

    options = {**CNN["simple_cnn"], "weights": {"run": str(source.path), "head": "new"}}

    def task(name: str) -> Task:
        folder = source.path.parents[1] / name / "seed-0"
        return task_of(
            {"simple_cnn": options},
            folder=folder,
            fine_tune={"layers": "gradual", "layer_decay": 0.7},
            epochs=4,
            select="last",
        )

    stages.carry_out(task("whole"))
    halves = task("halves")
    data, folder = load_data(halves), RunFolder(halves.folder)
    folder.path.mkdir(parents=True)
    model = build_model(halves, data)
    load_initial_weights(halves, data, model)
    with torch.random.fork_rng():
        training = distributed.begin_training(
            halves, data, model, None, folder, lambda position, epochs, done: None
        )
        training.until = 2
        distributed.train_on_all_ranks(training)
    stages.carry_out(halves)
    first, second = (
        read_state(RunFolder(source.path.parents[1] / name / "seed-0").weights)
        for name in ("whole", "halves")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("schedule", registry.names("schedules"))
def test_schedules_move_every_groups_own_rate(schedule: str) -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.4)]
    optimizer = torch.optim.SGD(groups)
    plan = registry.resolve("schedules", schedule)(optimizer=optimizer, steps=20, steps_per_epoch=5)
    for _ in range(12):
        optimizer.step()
        plan.step()
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(4 * first, rel=1e-3)


# --- the linear probe ---------------------------------------------------------------------------------------


def test_a_probe_is_the_logistic_regression_of_the_features(small: Data) -> None:
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    model = model_of({"mlp": {"widths": [6]}}).double()
    frozen = {name: value.clone() for name, value in model.state_dict().items() if "3." not in name}
    penalty = 0.01
    fit_linear_probe(model, small, [penalty])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in frozen.items())
    x = small.train.floats(small.train.images, torch.float64)
    y = small.train.labels.numpy()
    with torch.no_grad():
        hidden = nn.Sequential(model.normalize, *list(model.net)[:-1])(x).numpy()  # type: ignore[arg-type, call-overload]
        found = model(x).numpy()
    scaled = (hidden - hidden.mean(0)) / np.maximum(hidden.std(0), 1e-6)

    def cost(flat: np.ndarray) -> float:
        weights, bias = flat[:60].reshape(10, 6), flat[60:]
        logits = scaled @ weights.T + bias
        each = logsumexp(logits, 1) - logits[np.arange(len(y)), y]
        return float(each.mean() + penalty / 2 * (weights**2).sum())

    solved = minimize(cost, np.zeros(70), method="L-BFGS-B", options={"maxiter": 500, "maxfun": 100_000})
    expected = scaled @ solved.x[:60].reshape(10, 6).T + solved.x[60:]
    difference = (found - found.mean(1, keepdims=True)) - (expected - expected.mean(1, keepdims=True))
    assert abs(difference).max() < 0.02


def test_the_penalty_is_chosen_on_validation(source: RunFolder, task_of: Callable[..., Task]) -> None:
    _, record = tuned(task_of, source, {"layers": "probe", "penalties": [1000.0, 0.001]})
    tried = {each.penalty: each.accuracy for each in record.training.penalties}
    assert tried[0.001] > tried[1000.0]
    assert record.training.stopped == "a linear probe with the penalty 0.001"
    assert record.scores["validation"]["accuracy"].value == pytest.approx(tried[0.001])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_of_few_classes_and_one_without_images(classes: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(60, 1, 8, 8)
    y = (x.mean((1, 2, 3)) > x.mean()).long()
    data = Data.from_arrays(x, y, classes=[str(k) for k in range(classes)])
    model = with_input_layers(
        nn.Sequential(nn.Flatten(), nn.Linear(64, classes)), Normalize.by_moments([0.5], [0.5])
    )
    fit_linear_probe(model, data, [0.0001])
    with torch.no_grad():
        logits = model(data.train.images)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits.argmax(1), data.train.labels)


def test_a_net_without_a_linear_end_is_refused(small: Data) -> None:
    net = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    with pytest.raises(ConfigError, match="needs a net with a linear layer"):
        fit_linear_probe(with_input_layers(net, Normalize.by_moments([0.5], [0.5])), small, [0.1])


def test_opening_a_probe_gives_what_was_fitted(source: RunFolder, task_of: Callable[..., Task]) -> None:
    state, _ = tuned(task_of, source, {"layers": "probe", "penalties": [0.1]})
    model = open_model(RunFolder(source.path.parents[1] / "probe-[0.1]" / "seed-0"))
    assert all(torch.equal(value, state[name]) for name, value in model.net.state_dict().items())  # type: ignore[union-attr]


def test_dropout_in_front_of_all_that_is_trained_is_off() -> None:
    model = model_of({"vit": {"dropout": 0.5, "depth": 2, "width": 16, "heads": 2, "mlp": 8}})
    FineTuning(model, FineTune(layers="head"), (1, 8, 8)).begin(0)
    assert not any(module.training for module in model.modules() if isinstance(module, nn.Dropout))
    tuning = FineTuning(model, FineTune(layers="gradual"), (1, 8, 8))
    tuning.begin(1)
    on = [
        name
        for name, module in model.net.named_modules()
        if isinstance(module, nn.Dropout) and module.training
    ]  # type: ignore[union-attr]
    assert on
    assert all(name.startswith("3.") for name in on)  # the last block's alone


class Pooled(nn.Module):
    """Logits that no layer gives by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x).mean((2, 3)).abs().sqrt() @ torch.eye(10)[:, :9]


@pytest.mark.parametrize(
    "tune", [FineTune(layers="head"), FineTune(layers="gradual"), FineTune(head_lr_scale=2)]
)
def test_a_net_without_a_head_is_refused(tune: FineTune) -> None:
    with pytest.raises(ConfigError, match="no last layer of its own"):
        FineTuning(with_input_layers(Pooled(), Normalize.by_moments([0.5], [0.5])), tune, (1, 8, 8))


def test_keeping_statistics_needs_batch_norm() -> None:
    with pytest.raises(ConfigError, match="has no batch norm"):
        FineTuning(model_of("mlp"), FineTune(batch_norm="keep"), (1, 8, 8))


@pytest.mark.parametrize(
    ("tune", "epochs", "key"),
    [
        ({"layers": "head", "layer_decay": 0.5}, 3, "layer_decay"),
        ({"layers": "probe", "batch_norm": "keep"}, 3, "batch_norm"),
        ({"penalties": [1.0]}, 3, "penalties"),
        ({"layers": "gradual", "unfreeze_every": 3}, 3, "unfreeze_every"),
    ],
)
def test_settings_that_mean_nothing_together_are_told(
    tune: dict[str, Any], epochs: int, key: str, tmp_path: Any
) -> None:
    from stresslens.config import study_file
    from stresslens.core.errors import Problems

    with pytest.raises(Problems) as caught:
        study_file.variant_config_from({"train": {"fine_tune": tune, "epochs": epochs}}, tmp_path)
    assert caught.value.problems[0].path == ("train", "fine_tune", key)


@pytest.mark.parametrize(("epochs", "said"), [(1, "with 1 epoch only"), (3, "with 3 epochs only")])
def test_gradual_with_too_few_epochs_is_refused(epochs: int, said: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"train: {{epochs: {epochs}, fine_tune: {{layers: gradual, unfreeze_every: 3}}}}\n"
        "runs: {a: {model: linear}}\n"
    )
    with pytest.raises(ConfigError, match=f"{said} the head would be trained; give more epochs"):
        read_study(file)
