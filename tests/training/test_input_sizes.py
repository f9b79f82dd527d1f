"""Pictures kept at one size and shown at another: in training by random crops, elsewhere the middle."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from trainings import lines, training_of, weights

from stresslens.config.schema import Input
from stresslens.core.center_crop import CenterCrop, share_of
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Stopped
from stresslens.core.layers import Normalize, preparation
from stresslens.core.pretrained import Preprocessing
from stresslens.core.run_folder import RunFolder
from stresslens.core.torchvision_compat import torchvision
from stresslens.evaluation.export import export_run
from stresslens.evaluation.predictor import open_predictor
from stresslens.evaluation.saved_model import open_model
from stresslens.plugins.models import openclip
from stresslens.plugins.models.timm import default_preprocessing
from stresslens.plugins.models.torchvision import published as torchvision_weights
from stresslens.study import stages
from stresslens.study.preconditions import check_task
from stresslens.training.input_sizes import InputSizes
from stresslens.training.loop import Training
from stresslens.training.task import Task

Make = Callable[..., Task]
CROPS = [{"random_resized_crop": {"size": 6, "scale": [0.4, 1.0]}}, "flip"]


def sizes(
    inputs: dict[str, Any],
    kept: tuple[int, int] = (32, 32),
    known: Preprocessing | None = None,
    shown: tuple[int, int] | None = None,
) -> tuple[Any, Any, Any]:
    found = InputSizes.of(Input(**inputs), (3, *kept), known, shown)
    return found.resized, found.cropped, found.seen


def zoo(size: int, crop: float | None) -> Preprocessing:
    return Preprocessing((3, size, size), Normalize.by_moments([0.5] * 3, [0.5] * 3), "bicubic", crop)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (({},), (None, None, (32, 32))),
        (({"size": 24},), ((24, 24), None, (24, 24))),
        (({"size": 24, "crop": 0.75},), (None, (24, 24), (24, 24))),
        (({"crop": 0.875},), ((36, 36), (32, 32), (32, 32))),
        (({"size": 224, "crop": 0.875}, (300, 400)), ((256, 341), (224, 224), (224, 224))),
        (({"size": 224, "crop": 1.0}, (300, 400)), ((224, 298), (224, 224), (224, 224))),
        (({}, (32, 32), None, (24, 24)), (None, (24, 24), (24, 24))),
        (({}, (32, 48), None, (24, 24)), (None, (24, 24), (24, 24))),
        (({}, (16, 16), None, (24, 24)), ((24, 24), None, (24, 24))),
        (({"crop": "none"}, (32, 32), None, (24, 24)), ((24, 24), None, (24, 24))),
        (({}, (256, 256), zoo(224, 0.875)), ((224, 224), None, (224, 224))),  # as version 0.1.0
        (({"crop": "weights"}, (256, 256), zoo(224, 0.875)), (None, (224, 224), (224, 224))),
        (({"crop": "weights"}, (500, 375), zoo(224, 224 / 232)), ((309, 232), (224, 224), (224, 224))),
        (({}, (256, 256), zoo(224, 0.875), (128, 128)), ((146, 146), (128, 128), (128, 128))),
    ],
    ids=str,
)
def test_how_images_are_resized_and_cropped(given: Any, expected: Any) -> None:
    assert sizes(*given) == expected


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shows images of 24×24, .* set input.size to \[24, 24\]"):
        sizes({"size": 32}, shown=(24, 24))
    with pytest.raises(ConfigError, match=r"input.crop: weights: .* 0.875, or none"):
        sizes({"crop": "weights"})


@pytest.mark.parametrize("size", [(40, 40), (50, 37), (256, 256)], ids=str)
def test_evaluation_is_that_of_torchvisions_weights(size: tuple[int, int]) -> None:
    """Resize to 36, then crop 32, as `ImageClassification` does."""
    from torchvision.transforms._presets import ImageClassification

    assert torchvision()
    reference = ImageClassification(crop_size=32, resize_size=36, mean=(0.4,) * 3, std=(0.2,) * 3)
    front = InputSizes.of(Input(size=32, crop=32 / 36), (3, *size), None, None)
    model = front.before(nn.Identity(), Normalize.by_moments([0.4] * 3, [0.2] * 3))
    x = torch.rand(4, 3, *size, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(x), reference(x), atol=1e-5)


def test_each_zoo_tells_how_it_crops() -> None:
    weights = {
        "openai": openclip.published(name="ViT-B-32", weights="openai"),
        "siglip": openclip.published(name="ViT-B-16-SigLIP", weights="webli"),
        "torchvision": torchvision_weights(name="resnet50", weights="IMAGENET1K_V2"),
    }
    crops = {name: each and each.preprocessing and each.preprocessing.crop for name, each in weights.items()}
    assert crops == {"openai": 1.0, "siglip": None, "torchvision": pytest.approx(224 / 232)}
    assert default_preprocessing(name="resnet18.a1_in1k").crop == 0.95


def test_evaluation_is_that_of_timm() -> None:
    from timm.data import create_transform

    known = default_preprocessing(name="resnet18.a1_in1k")
    front = InputSizes.of(Input(crop="weights"), (3, 330, 300), known, None)
    model = front.before(nn.Identity(), known.normalize)
    pixels = torch.randint(0, 256, (330, 300, 3), dtype=torch.uint8, generator=torch.Generator())
    reference = create_transform(
        known.shape, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        interpolation=known.interpolation, crop_pct=known.crop,
    )  # fmt: skip
    expected = reference(Image.fromarray(pixels.numpy()))
    found = model(pixels.permute(2, 0, 1)[None].float() / 255)[0]
    assert found.shape == expected.shape
    assert (found - expected).abs().mean() < 0.02  # PIL rounds to eight bits


# --- a run --------------------------------------------------------------------------------------------------


def test_the_net_sees_random_crops_in_training_and_the_middle_elsewhere(task_of: Make) -> None:
    task = task_of({"mlp": {"widths": [8]}}, epochs=2, augment=CROPS, batch_size=30)
    seen: list[torch.Tensor] = []
    training = training_of(task)
    assert training.batch_loss.net[1].in_features == 36
    handle = training.batch_loss.net.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    training.batch_loss(next(training.batches()))
    handle.remove()
    assert seen[0].shape == (30, 1, 6, 6)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(training.model.crop(x), x[:, :, 1:7, 1:7])
    assert preparation(training.model, (1, 8, 8)) == "the middle 6×6 of 8×8"


def test_a_run_keeps_its_shown_size(task_of: Make, small: Data) -> None:
    task = task_of({"mlp": {"widths": [32]}}, augment=CROPS, epochs=15, lr=0.01)
    record = stages.carry_out(task)
    folder = RunFolder(task.folder)
    card = folder.load_card()
    assert (card.shape, card.crop, card.seen, card.size) == ((1, 8, 8), (6, 6), (1, 6, 6), None)
    assert record.input == "the middle 6×6 of 8×8"
    model = open_model(folder)
    assert small.test is not None
    x = small.test.floats(small.test.images)
    logits = model(x)
    border = x.clone()
    border[:, :, 0], border[:, :, :, -1] = 1, 0.5
    assert torch.equal(model(border), logits)
    assert not torch.equal(model(1 - x), logits)
    assert lines(task)[-1]["validation"]["accuracy"] > 0.2
    exported = export_run(folder, "safetensors")
    assert torch.allclose(torch.from_numpy(open_predictor(exported.file).answer(x)[0]).float(), logits)


def test_a_stopped_run_goes_on_with_the_same_bits(task_of: Make, tmp_path: Any) -> None:
    augment = [*CROPS, "color_jitter", "gaussian_blur", {"erasing": {"value": "random"}}, "rotation"]
    options = {"augment": augment, "batch_size": 50, "epochs": 4}
    whole = task_of("linear", folder=tmp_path / "whole", **options)
    stages.carry_out(whole)
    stopped = task_of("linear", folder=tmp_path / "stopped", **options)
    calls, keep = 0, Training.after_step

    def raise_signal_once(self: Training) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            signal.raise_signal(signal.SIGTERM)
        keep(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "after_step", raise_signal_once)
        with pytest.raises(Stopped):
            stages.carry_out(stopped)
    stages.carry_out(stopped)
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (stopped.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_run_that_starts_from_it_sees_the_same_middle(task_of: Make, tmp_path: Any) -> None:
    first = task_of({"mlp": {"widths": [8]}}, augment=CROPS, folder=tmp_path / "first" / "seed-0")
    stages.carry_out(first)
    model = {"mlp": {"widths": [8], "weights": {"run": str(first.folder)}}}
    second = task_of(model, epochs=0, folder=tmp_path / "second" / "seed-0")
    stages.carry_out(second)
    card = RunFolder(second.folder).load_card()
    assert (card.size, card.crop) == (None, (6, 6))
    assert all(torch.equal(weights(first)[name], value) for name, value in weights(second).items())


SIX = {"crop": {"padding": 0, "size": 6}}


def choice(first: Any, second: Any, **options: Any) -> list[Any]:
    return [{"random_choice": {"first": first, "second": second, **options}}]


def test_a_choice_between_crops_tells_their_size(task_of: Make) -> None:
    either = choice(SIX, {"random_resized_crop": {"size": [6, 6]}})
    training = training_of(task_of("linear", augment=either, batch_size=30))
    assert training.batch_loss.net[1].in_features == 36
    assert {batch.x.shape[1:] for batch in training.batches()} == {(1, 6, 6)}


@pytest.mark.parametrize(
    ("augment", "why"),
    [
        (choice({"crop": {"size": 6}}, "mixup"), "first returns 6×6 and second images of the size they had"),
        (
            choice({"crop": {"size": 6}}, {"random_resized_crop": {"size": 7}}),
            "first returns 6×6 and second 7×7",
        ),
        (choice({"crop": {"size": 6}}, {"crop": {"size": 6}}, chance=0.5), "chance 0.5 some images keep"),
    ],
    ids=["one", "two", "some"],
)
def test_a_choice_between_sizes_is_refused_before_training(task_of: Make, augment: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_task(task_of("linear", augment=augment))


@pytest.mark.breadth(1)
@pytest.mark.parametrize("kept", [(16, 8), (8, 16)], ids=str)
def test_it_sees_the_same_middle_of_images_that_are_not_square(
    task_of: Make, tmp_path: Any, kept: tuple[int, int]
) -> None:
    images = torch.randint(0, 256, (60, 1, *kept), dtype=torch.uint8)
    data = Data.from_arrays(images, torch.arange(60) % 3)
    first = task_of("linear", data=data, augment=[SIX], epochs=1, folder=tmp_path / "first" / "seed-0")
    stages.carry_out(first)
    model = {"linear": {"weights": {"run": str(first.folder)}}}
    second = task_of(model, data=data, epochs=0, folder=tmp_path / "second" / "seed-0")
    stages.carry_out(second)
    before, after = (RunFolder(each.folder).load_card() for each in (first, second))
    assert (before.size, before.crop) == (after.size, after.crop) == (None, (6, 6))


@pytest.mark.parametrize(("size", "share"), [(24, 0.75), ((20, 24), 0.875), (32, 1.0)], ids=str)
@pytest.mark.parametrize("kept", [(300, 400), (400, 300), (32, 32), (31, 47)], ids=str)
def test_the_share_is_that_of_the_crop(size: Any, share: float, kept: tuple[int, int]) -> None:
    resized, cropped, seen = sizes({"size": size, "crop": share}, kept)
    again = share_of(seen, resized or kept)
    assert sizes({"size": seen, "crop": again}, kept) == (resized, cropped, seen)


def test_adversarial_training_attacks_the_crops_it_shows(task_of: Make) -> None:
    task = task_of(
        {"mlp": {"widths": [8]}},
        augment=CROPS,
        objective={"adversarial": {"attack": "fgsm", "eps": 0.1, "norm": "linf"}},
        epochs=1,
    )
    stages.carry_out(task)
    assert RunFolder(task.folder).load_card().seen == (1, 6, 6)


def test_an_augmentation_that_does_not_tell_its_size_is_refused(task_of: Make, tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text("def half(x, y, draws):\n    'Half.'\n    return x[..., :4], y\n")
    task = task_of("linear", augment=["mine.py:half"])
    training = training_of(task)
    with pytest.raises(ConfigError, match=r"changes the size of images \(8×8, 8×4\); a function shown_size"):
        next(training.batches())


def test_each_pixels_own_range_needs_all_pixels(task_of: Make) -> None:
    task = task_of("linear", augment=CROPS)
    config = replace(task.config, input=Input(normalize="pixel_minmax"))
    with pytest.raises(ConfigError, match="pixel_minmax scales each pixel of 8×8 by itself"):
        training_of(replace(task, config=config))


def test_a_study_without_a_crop_has_the_settings_of_before(task_of: Make) -> None:
    task = task_of("linear")
    assert list(task.plan.configuration["input"]) == ["size", "normalize", "interpolation"]
    cropped = replace(task, config=replace(task.config, input=Input(size=6, crop=0.75)))
    assert cropped.plan.configuration["input"]["crop"] == 0.75


@pytest.mark.parametrize("of", [(8, 8), (9, 8), (11, 6)], ids=str)
def test_the_middle_is_torchvisions(of: tuple[int, int]) -> None:
    assert torchvision()
    from torchvision.transforms import v2

    x = torch.rand(2, 1, *of)
    assert torch.equal(CenterCrop((6, 5), of)(x), v2.functional.center_crop(x, [6, 5]))
