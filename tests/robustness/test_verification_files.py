"""Files that claim what they do not hold, against a trained run: each is told, and honest ones pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.core.data import Split
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.finished_run import data_of
from stresslens.robustness.split_lookup import look_up
from stresslens.robustness.verification import verify_run

EPS = 0.1


@dataclass
class Scene:
    """A trained model of the digits, its test split, and PGD's images of it."""

    folder: Path
    model: nn.Module
    test: Split
    train: Split
    x: Tensor
    y: Tensor
    x_adv: Tensor

    def adversarials(self, x: Tensor, y: Tensor, eps: float = EPS) -> Tensor:
        z = x.clone()
        for _ in range(10):
            point = z.clone().requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(self.model(point), y, reduction="sum"), point)
            z = torch.minimum(torch.maximum(z + 0.4 * eps * grad.sign(), x - eps), x + eps).clamp(0, 1)
        return z.detach()

    def answers(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(x).argmax(1)

    @property
    def broken(self) -> Tensor:
        return (self.answers(self.x_adv) != self.y) & (self.answers(self.x) == self.y)

    def recount(
        self, *, eps: float | None = None, norm: Any = None, claimed: float | None = None, **arrays: Any
    ) -> sl.Verification:
        named = {"radius": EPS, "norm": "linf", "adversarials": self.x_adv} | arrays
        values = {key: np.asarray(value) for key, value in named.items()}
        others = {"train": self.train}
        return verify_run(self.model, self.test, values, norm=norm, eps=eps, claimed=claimed, others=others)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs")
    run = sl.train("mlp", "digits", epochs=5, out=out, threads=1, precision="float32")
    data = data_of(RunFolder(run.folder))
    assert data.test is not None
    x, y = data.test.floats(data.test.images[:]).float(), data.test.labels
    found = Scene(run.folder, run.model(), data.test, data.train, x, y, x)
    found.x_adv = found.adversarials(x, y)
    return found


def signs(recount: sl.Verification, severity: str | None = None) -> list[str]:
    return [
        each.audit for each in recount.findings if each.status == "sign" and severity in (None, each.severity)
    ]


def share_left(scene: Scene) -> float:
    return float((scene.answers(scene.x_adv) == scene.y).float().mean())


HONEST: dict[str, Callable[[Scene], dict[str, Any]]] = {
    "file order": lambda s: {},
    "index": lambda s: {"index": torch.arange(len(s.x))},
    "images and labels": lambda s: {"images": s.x, "labels": s.y},
    "images alone": lambda s: {"images": s.x},
    "another order": lambda s: (
        {key: value.flip(0) for key, value in (("images", s.x), ("labels", s.y))}
        | {"adversarials": s.x_adv.flip(0)}
    ),
    "successes only, as AutoAttack gives them": lambda s: {
        "adversarials": torch.where(s.broken[:, None, None, None], s.x_adv, s.x)
    },
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_file_passes(scene: Scene, name: str) -> None:
    recount = scene.recount(**HONEST[name](scene))
    assert signs(recount) == []
    assert recount.robust.value == pytest.approx(share_left(scene), abs=0.003)
    assert recount.robust.n == len(scene.x)


def test_a_random_part_passes_and_the_rest_is_named(scene: Scene) -> None:
    rows = torch.randperm(len(scene.x), generator=torch.Generator().manual_seed(0))[:200]
    recount = scene.recount(adversarials=scene.x_adv[rows], index=rows)
    assert signs(recount) == ["dropped images"]
    assert any("200 images of 360" in finding.evidence for finding in recount.findings)


def first_robust(s: Scene) -> Tensor:
    return (s.answers(s.x_adv) == s.y).nonzero()[0]


def half(s: Scene) -> Tensor:
    return torch.cat([s.x_adv[:180], s.x[180:]])


def successes_of_the_first_half(s: Scene) -> Tensor:
    return torch.cat([torch.where(s.broken[:, None, None, None], s.x_adv, s.x)[:180], s.x[180:]])


def easiest(s: Scene) -> Tensor:
    with torch.no_grad():
        logits = s.model(s.x)
    others = logits.scatter(1, s.y[:, None], -torch.inf).amax(1)
    return (logits.gather(1, s.y[:, None])[:, 0] - others).argsort(descending=True)[:200]


WRONG: dict[str, tuple[str, str, Callable[[Scene], dict[str, Any]]]] = {
    "one robust image n times": (
        "repeated images",
        "1 distinct image",
        lambda s: {
            "adversarials": s.x_adv[first_robust(s).expand(360)],
            "index": first_robust(s).expand(360),
        },
    ),
    "the same image n times, as images": (
        "repeated images",
        "1 distinct image",
        lambda s: {
            "adversarials": s.x_adv[first_robust(s).expand(360)],
            "images": s.x[first_robust(s).expand(360)],
        },
    ),
    "two files of the first hundred, merged": (
        "repeated images",
        "200 entries are 100 distinct images",
        lambda s: {"adversarials": s.x_adv[:100].repeat(2, 1, 1, 1), "index": torch.arange(100).repeat(2)},
    ),
    "labels are predictions": (
        "labels",
        "predictions without attack",
        lambda s: {"images": s.x, "labels": s.answers(s.x)},
    ),
    "labels are the answers to the adversarials": (
        "labels",
        "answers to the adversarial images",
        lambda s: {"images": s.x, "labels": s.answers(s.x_adv)},
    ),
    "images shuffled against the labels": (
        "labels",
        "differ from the split's",
        lambda s: {"images": s.x, "labels": s.y.roll(1)},
    ),
    "originals moved beforehand": (
        "originals",
        "360 of 360 originals are not in the split",
        lambda s: {
            "images": s.x_adv,
            "labels": s.y,
            "adversarials": s.adversarials(s.x_adv, s.y),
        },
    ),
    "training images": (
        "originals",
        "300 of them are train images",
        lambda s: {
            "images": s.train.floats(s.train.images[:300]),
            "labels": s.train.labels[:300],
            "adversarials": s.adversarials(s.train.floats(s.train.images[:300]), s.train.labels[:300]),
        },
    ),
    "some images are training images": (
        "originals",
        "60 of them are train images",
        lambda s: {
            "images": torch.cat([s.x[:300], s.train.floats(s.train.images[:60])]),
            "adversarials": s.adversarials(
                torch.cat([s.x[:300], s.train.floats(s.train.images[:60])]),
                torch.cat([s.y[:300], s.train.labels[:60]]),
            ),
        },
    ),
    "images that are not those at their index": (
        "originals",
        "not the image at their index",
        lambda s: {"images": s.x, "index": torch.arange(360).roll(1)},
    ),
    "an index that counts from 1": (
        "index",
        "fit the image -1 places on",
        lambda s: {"adversarials": s.x_adv[:-1], "index": torch.arange(1, 360)},
    ),
    "adversarials of another split": (
        "index",
        "near other train images",
        lambda s: {
            "adversarials": s.adversarials(s.train.floats(s.train.images[:360]), s.train.labels[:360])
        },
    ),
    "never attacked": ("untouched images", "360 of 360", lambda s: {"adversarials": s.x}),
    "half attacked": ("untouched images", "180 of 360", lambda s: {"adversarials": half(s)}),
    "every second attacked": (
        "untouched images",
        "180 of 360",
        lambda s: {
            "adversarials": torch.where(torch.arange(360)[:, None, None, None] % 2 == 0, s.x_adv, s.x)
        },
    ),
    "successes of the first half only": (
        "untouched images",
        "in a row",
        lambda s: {"adversarials": successes_of_the_first_half(s)},
    ),
    "the hard ones left out": (
        "left out images",
        "easier for the model",
        lambda s: {"adversarials": s.x_adv[easiest(s)], "index": easiest(s)},
    ),
    "a smaller radius than claimed": (
        "unused radius",
        "0.3 of the radius",
        lambda s: {"adversarials": s.adversarials(s.x, s.y, 0.03)},
    ),
    "a larger radius than claimed": (
        "ball",
        "outside the ball",
        lambda s: {"adversarials": s.adversarials(s.x, s.y, 0.2)},
    ),
    "from 0 to 255": ("box", "values from 0 to 255", lambda s: {"adversarials": s.x_adv * 255}),
    "normalised": ("box", "values from -", lambda s: {"adversarials": (s.x_adv - 0.3) / 0.3}),
    "NaN pixels": (
        "finite",
        "1 of 360",
        lambda s: {"adversarials": s.x_adv.index_fill(0, torch.tensor([5]), torch.nan)},
    ),
    "recounted at a larger radius": ("threat model", "radius 0.1, recounted at 0.2", lambda s: {"eps": 0.2}),
    "recounted in another norm": (
        "threat model",
        "of linf, recounted in l2",
        lambda s: {"norm": "l2", "eps": 1.0},
    ),
    "a claim that does not hold": ("claimed accuracy", "claimed 99.0 %", lambda s: {"claimed": 0.99}),
}


@pytest.mark.breadth(8)
@pytest.mark.parametrize("name", WRONG)
def test_what_a_file_does_not_hold_is_told(scene: Scene, name: str) -> None:
    audit, evidence, changes = WRONG[name]
    recount = scene.recount(**changes(scene))
    told = next(finding for finding in recount.findings if finding.audit == audit)
    assert (told.status, told.severity) == ("sign", "serious"), told
    assert evidence in told.evidence
    assert told.remedy


def test_copies_do_not_count_and_the_worst_of_them_does(scene: Scene) -> None:
    """Two attacks on every image, in one file: an image is broken if one of them breaks it."""
    noise = (scene.x + EPS * torch.randn_like(scene.x).sign()).clamp(0, 1)
    recount = scene.recount(adversarials=torch.cat([scene.x_adv, noise]), index=torch.arange(360).repeat(2))
    assert signs(recount, "serious") == []
    assert (recount.robust.n, recount.given, len(recount.broken)) == (360, 720, 720)
    assert recount.robust.value <= share_left(scene)


def test_a_result_whose_index_repeats_an_image(scene: Scene) -> None:
    """The form of a result of stresslens, in which nothing broke."""
    robust = first_robust(scene)
    recount = scene.recount(
        adversarials=scene.x_adv[:0],
        rows=np.zeros(0, np.int64),
        index=robust.expand(360),
        radius=[np.inf] * 360,
    )
    assert "repeated images" in signs(recount, "serious")
    assert recount.robust.n == 1


def test_the_split_decides_labels_and_originals(scene: Scene) -> None:
    honest = scene.recount()
    for changes in (WRONG["labels are predictions"], WRONG["images shuffled against the labels"]):
        assert scene.recount(**changes[2](scene)).robust == honest.robust


def test_originals_in_8_bits_are_found_and_told(scene: Scene) -> None:
    for rounded in ((scene.x * 255).round(), (scene.x * 255).floor()):
        recount = scene.recount(images=rounded.to(torch.uint8), labels=scene.y)
        assert "originals" in signs(recount, "minor")
        assert any("by rounding" in finding.evidence for finding in recount.findings)


def test_an_unknown_image_needs_its_label(scene: Scene) -> None:
    with pytest.raises(sl.DataError, match="360 of 360 images are in no split of the run"):
        scene.recount(images=scene.x_adv)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"index": np.arange(360) - 1}, "index runs from -1 to 358"),
        ({"index": np.arange(360) + 1}, "index runs from 1 to 360"),
        ({"index": np.arange(360.0)}, "index is float64"),
        ({"index": np.arange(359)}, "360 adversarial images but 359 places"),
        ({"images": np.zeros((360, 1, 9, 9), np.float32)}, "shape|cannot take"),
    ],
)
def test_what_does_not_fit_is_refused(scene: Scene, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(sl.StresslensError, match=said):
        scene.recount(**arrays)


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("images and labels", 0, ""),
        ("one robust image n times", 3, "repeated images: 360 entries are 1 distinct image"),
        ("labels are predictions", 3, "its figure does not count"),
        ("training images", 3, "300 of them are train images"),
        ("never attacked", 5, "untouched images: 360 of 360"),
        ("a claim that does not hold", 5, "claimed accuracy: claimed 99.0 %"),
    ],
)
def test_the_exit_code_says_which(scene: Scene, tmp_path: Path, name: str, code: int, words: str) -> None:
    changes = HONEST[name](scene) if name in HONEST else WRONG[name][2](scene)
    options = ["--claimed", str(changes.pop("claimed"))] if "claimed" in changes else []
    file = tmp_path / "file.npz"
    arrays = {"adversarials": scene.x_adv, "eps": EPS, "norm": "linf"} | changes
    np.savez(file, **{key: np.asarray(value) for key, value in arrays.items()})
    done = CliRunner().invoke(app, ["verify", str(scene.folder), str(file), *options])
    error = done.exception
    assert (error.exit_code if isinstance(error, sl.StresslensError) else done.exit_code) == code
    assert words in str(error)


# Arrays of one's own, without a split


def test_arrays_with_copies_count_each_image_once(scene: Scene) -> None:
    robust = int(first_robust(scene)[0])
    rows = torch.tensor([robust] * 50 + [int(scene.broken.nonzero()[0])])
    recount = sl.verify(scene.model, scene.x_adv[rows], scene.x[rows], scene.y[rows], eps=EPS)
    assert (recount.robust.n, recount.robust.value, len(recount.broken)) == (2, 0.5, 51)
    assert "repeated images" in signs(recount, "serious")


def test_arrays_that_were_never_attacked(scene: Scene) -> None:
    recount = sl.verify(scene.model, scene.x, scene.x, scene.y, eps=EPS)
    assert "untouched images" in signs(recount, "serious")
    assert recount.untouched == 360
    assert "untouched images" in signs(
        sl.verify(scene.model, half(scene), scene.x, scene.y, eps=EPS), "serious"
    )


def test_arrays_at_radius_zero_are_not_untouched_by_mistake(scene: Scene) -> None:
    assert "untouched images" not in signs(sl.verify(scene.model, scene.x, scene.x, scene.y, eps=0))


def test_arrays_whose_labels_are_answers(scene: Scene) -> None:
    after = sl.verify(scene.model, scene.x_adv, scene.x, scene.answers(scene.x_adv), eps=EPS)
    assert "labels" in signs(after, "serious")
    before = sl.verify(scene.model, scene.x_adv, scene.x, scene.answers(scene.x), eps=EPS)
    assert "labels" in signs(before, "minor")
    assert "labels" not in signs(sl.verify(scene.model, scene.x_adv, scene.x, scene.y, eps=EPS))


def test_equal_images_of_a_split_are_found_one_after_the_other() -> None:
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x[3] = x[1]
    split = Split(x, torch.arange(6), 1.0)
    assert look_up(x, split).positions.tolist() == [0, 1, 2, 3, 4, 5]
    found = look_up(torch.cat([x[[3, 1, 1]], 1 - x[:1]]), split)
    assert found.positions.tolist() == [1, 3, 1, -1]
    assert found.apart[:3].tolist() == [0, 0, 0]
    assert found.apart[3] > 0.1
