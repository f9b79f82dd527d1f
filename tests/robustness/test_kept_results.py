"""A kept result is returned to the model it belongs to, and to no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.data import Split
from stresslens.core.module_digest import ModuleDigest
from stresslens.robustness import kept_result
from stresslens.robustness.result import AttackResult
from stresslens.robustness.result_file import ResultFile

ASKED: dict[str, Any] = {"radii": [0.05], "protocol": ["fgsm"], "audit": False}


def linear(scale: float = 1.0) -> nn.Module:
    weight = torch.linspace(-1, 1, 12).reshape(3, 4) * scale
    net = nn.Linear(4, 3)
    net.load_state_dict({"weight": weight, "bias": torch.tensor([0.1, 0.0, -0.1])})
    return nn.Sequential(nn.Flatten(), net)


class Around(nn.Module):
    """The same weights, with something that is no parameter before them."""

    def __init__(self, before: Callable[[Tensor], Tensor] = lambda x: x, kept: Any = None) -> None:
        super().__init__()
        self.net, self.before, self.kept, self.calls = linear(), before, kept, 0
        self.features: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.features = self.before(x)
        out: Tensor = self.net(self.features)
        return out


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    x = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x, linear()(x).argmax(1)


def shifted(shift: float) -> Around:
    constant = torch.full((1,), shift)
    return Around(lambda x: x + constant)


def test_a_model_that_differs_outside_its_weights_is_refused(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    first = sl.attack(shifted(0.0), *images, out=tmp_path, **ASKED)
    with pytest.raises(sl.ConfigError, match="another model"):
        sl.attack(shifted(0.3), *images, out=tmp_path, **ASKED)
    again = sl.attack(shifted(0.0), *images, out=tmp_path, **ASKED)
    assert again.facts == first.facts


@pytest.mark.slow
def test_two_attacks_differ_in_no_byte_but_their_timings(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """And read again, the result says how long it took."""
    for name in ("a", "b"):
        sl.attack(linear(), *images, out=tmp_path / name, **(ASKED | {"audit": True}))
    for first in (tmp_path / "a").rglob("*"):
        second = tmp_path / "b" / first.relative_to(tmp_path / "a")
        if first.is_file() and first.name != "timings.json":
            assert first.read_bytes() == second.read_bytes(), first.name
    (result,) = (tmp_path / "a").glob("*/result.json")
    assert "seconds" not in result.read_text()
    read = ResultFile.read(result)
    assert read.cost.seconds
    assert read.traces[0].seconds > 0
    assert read.traces[0].n == len(images[0])


def test_a_result_is_read_without_its_timings_and_with_damaged_ones(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    found = sl.attack(linear(), *images, out=tmp_path, **ASKED)
    timings = next(tmp_path.glob("*/timings.json"))
    for content in ("[]", '{"cost": 3, "traces": [{}, {}, {}, {}]}', None):
        timings.unlink() if content is None else timings.write_text(content)
        read = ResultFile.read(timings.with_name("result.json"))
        assert len(read.traces) == len(found.traces)
        assert not read.cost.seconds
    timings.write_text("{")
    with pytest.raises(sl.StresslensError, match=r"timings\.json cannot be read as JSON"):
        ResultFile.read(timings.with_name("result.json"))


def test_chunks_that_a_kill_left_beside_a_finished_attack_are_removed(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    sl.attack(linear(), *images, out=tmp_path, **ASKED)
    chunks = next(tmp_path.glob("*/result.json")).with_name("chunks")
    chunks.mkdir()
    (chunks / "0000000.npz").write_text("x")
    sl.attack(linear(), *images, out=tmp_path, **ASKED)
    assert not chunks.exists()


def test_an_attribute_that_is_changed_between_two_calls_is_seen(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    model = Around()
    sl.attack(model, *images, out=tmp_path, **ASKED)
    model.before = lambda x: x * 0.5
    with pytest.raises(sl.ConfigError, match="another model"):
        sl.attack(model, *images, out=tmp_path, **ASKED)


def test_what_a_forward_pass_leaves_behind_does_not_make_another_model(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """Kept activations, and a count of calls."""
    model = Around()
    first = sl.attack(model, *images, out=tmp_path, **ASKED)
    assert model.calls > 2
    assert sl.attack(model, *images, out=tmp_path, **ASKED).facts == first.facts
    assert sl.attack(Around(), *images, out=tmp_path, **ASKED).facts == first.facts


def test_an_object_that_cannot_be_looked_into_is_judged_by_its_answers(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    first = sl.attack(Around(kept=threading.Lock()), *images, out=tmp_path, **ASKED)
    again = sl.attack(Around(kept=threading.Lock()), *images, out=tmp_path, **ASKED)
    assert again.facts == first.facts


def test_answers_decide_where_the_digests_agree(
    images: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a result of version 0.1.0, whose digest did not look at everything."""
    monkeypatch.setattr(kept_result, "digest_of", lambda model: ModuleDigest({}, ()))
    sl.attack(shifted(0.0), *images, out=tmp_path, **ASKED)
    sl.attack(shifted(0.0), *images, out=tmp_path, **ASKED)
    with pytest.raises(sl.ConfigError, match="another model"):
        sl.attack(shifted(0.05), *images, out=tmp_path, **ASKED)


def test_another_surrogate_is_another_attack(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    asked: dict[str, Any] = ASKED | {"protocol": ["transfer"]}
    sl.attack(linear(), *images, out=tmp_path, surrogate=shifted(0.0), **asked)
    with pytest.raises(sl.ConfigError, match="another model"):
        sl.attack(linear(), *images, out=tmp_path, surrogate=shifted(0.3), **asked)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_precisions_find_their_results(
    dtype: torch.dtype, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    model = linear().to(dtype)
    first = sl.attack(model, *images, out=tmp_path, **ASKED)
    assert sl.attack(model, *images, out=tmp_path, **ASKED).facts == first.facts


def test_images_and_labels_that_were_changed_in_place_are_other_images(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    split = Split(images[0].clone(), images[1].clone(), 1.0)
    folders = set()
    for change in (
        lambda: None,
        lambda: split.images[0].fill_(0.5),
        lambda: split.labels[1].add_(1).remainder_(3),
    ):  # type: ignore[union-attr]
        change()
        sl.attack(linear(), split, out=tmp_path, **ASKED)
        folders.add(len(list(tmp_path.glob("*/result.json"))))
    assert folders == {1, 2, 3}
    assert sl.evaluate(linear(), split)["accuracy"].value < 1
    split.images.copy_(1 - split.images)  # type: ignore[union-attr,operator]
    fresh = sl.evaluate(linear(), replace(split, images=split.images.clone()))  # type: ignore[union-attr]
    assert sl.evaluate(linear(), split)["accuracy"].value == fresh["accuracy"].value


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
def test_a_damaged_result_is_an_error(images: tuple[Tensor, Tensor], tmp_path: Path, share: float) -> None:
    whole = sl.attack(linear(), *images, out=tmp_path, **ASKED)
    (file,) = tmp_path.glob("*/result.npz")
    content = bytearray(file.read_bytes())
    content[int(share * len(content))] ^= 8
    file.write_bytes(content)
    with suppress(sl.ConfigError):  # unless the flipped bit is in the date of a part
        kept = AttackResult.load(file.parent)
        assert all(np.array_equal(kept.arrays[name], values) for name, values in whole.arrays.items())
