"""A fixed target: images that already are of it are left out, and targeted success is no robust
accuracy."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stresslens import api
from stresslens.config.schema import Robustness
from stresslens.config.threat_model import resolved_threat_model, with_class_numbers
from stresslens.core.class_names import name_classes, names_of
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.module_digest import digest_of
from stresslens.robustness.result import AttackResult
from stresslens.robustness.result_file import attacked_images


@pytest.fixture(scope="module")
def scene() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear model and images, a third of each class."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
        x = torch.rand(90, 3, 4, 4)
    with torch.no_grad():
        net[1].bias.copy_(net[1].bias - net(x).mean(0))
    return net, x, net(x).argmax(1)


@pytest.mark.parametrize("success", ["untargeted", "target"])
def test_images_of_the_target_class_are_left_out_and_counted(
    scene: tuple[nn.Module, Tensor, Tensor], success: str, tmp_path: Path
) -> None:
    net, x, y = scene
    found = api.attack(
        net, x, y, radii=[0.3], protocol=["pgd"], target=0, success=success, out=tmp_path, audit=False
    )
    others = int((y != 0).sum())
    assert (found.result.n, found.result.left_out, found.result.asked) == (others, 90 - others, others)
    assert found.robust_accuracy(0.3).n == found.result.clean.n == others
    assert found.robust_accuracy(0.3).value < 0.05
    assert len(found.minimal_radius) == 90
    assert (np.isnan(found.minimal_radius) == (y == 0).numpy()).all()
    assert len(found.curve.smallest) == others
    if success == "target":
        assert (found.arrays["adversarial_prediction"] == 0).all()
    again = AttackResult.load(next(tmp_path.glob("*/")))
    kept = attacked_images(again.arrays)
    assert (kept["labels"][kept["rows"]] == again.arrays["labels"][again.arrays["rows"]]).all()
    assert (kept["smallest"][kept["rows"]] == again.arrays["smallest"][again.arrays["rows"]]).all()


def test_an_individual_attack_leaves_out_the_images_of_its_own_target(
    scene: tuple[nn.Module, Tensor, Tensor],
) -> None:
    net, x, y = scene
    alone = [{"attack": "pgd", "target": 2}, "pgd"]
    found = api.attack(net, x, y, radii=[0.3], protocol="none", individual_attacks=alone, audit=False)
    toward, plain = found.result.individual_attacks
    of_target = int((y == 2).sum())
    assert (toward.left_out, toward.rows[0].accuracy.n) == (of_target, 90 - of_target)
    assert toward.rows[0].accuracy.value < 0.05
    assert (plain.left_out, plain.rows[0].accuracy.n) == (0, 90)


def test_targeted_success_is_told_as_what_it_is(scene: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = scene
    y = y.clone()
    y[:6] = (y[:6] + 1) % 3  # wrong without attack
    asked = {"radii": [0.01], "protocol": ["pgd"], "target": "least_likely", "audit": False}
    aimed, proxy = (api.attack(net, x, y, success=s, **asked) for s in ("target", "untargeted"))
    assert aimed.facts["measure"] == "accuracy unless driven to the target"
    assert "measure" not in proxy.facts
    rate = aimed.targeted_success_rate(0.01)
    reached = np.isfinite(aimed.minimal_radius) & (aimed.minimal_radius > 0)
    assert (rate.value, rate.n) == (pytest.approx(reached.sum() / 84), 84)
    assert aimed.robust_accuracy(0.01).value > proxy.robust_accuracy(0.01).value
    with pytest.raises(ConfigError, match="success: target"):
        proxy.targeted_success_rate(0.01)


def test_what_cannot_be_aimed_at_is_told(scene: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = scene
    with pytest.raises(DataError, match="all 3 images are of the class 1"):
        api.attack(net, x[:3], torch.ones(3, dtype=torch.int64), radii=[0.1], target=1)
    with pytest.raises(ConfigError, match="'cat': give the class by its number"):
        api.attack(net, x, y, radii=[0.1], target="cat")


def test_targets_become_numbers_by_the_names_of_the_classes() -> None:
    config = Robustness(radii=0.1, protocol=["fgsm"], target="dog", individual_attacks=["pgd"])
    threat = with_class_numbers(resolved_threat_model(config, Path()), ["cat", "dog"])
    assert (threat.target, threat.target_name, threat.settings["target"]) == (1, "dog", 1)
    random = Robustness(radii=0.1, protocol=["fgsm"], target="random")
    assert with_class_numbers(resolved_threat_model(random, Path()), ["cat", "dog"]).target == "random"
    wrong = resolved_threat_model(Robustness(radii=0.1, protocol=["fgsm"], target="dgo"), Path())
    with pytest.raises(ConfigError, match="no class is called 'dgo'"):
        with_class_numbers(wrong, ["cat", "dog"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile
def test_a_model_knows_the_names_of_its_classes_and_so_do_copies(
    scene: tuple[nn.Module, Tensor, Tensor],
) -> None:
    net, x, y = copy.deepcopy(scene[0]), scene[1][:12], scene[2][:12]
    before = digest_of(net).text()
    name_classes(net, ["cat", "dog", "fox"])
    assert digest_of(net).text() == before
    words = np.array(["cat", "dog", "fox"])[y.numpy()]
    for model in (net, copy.deepcopy(net), torch.compile(net), nn.DataParallel(net)):
        assert names_of(model) == ("cat", "dog", "fox")
        found = api.attack(
            model,
            x,
            words,
            radii=[0.1],
            protocol=["fgsm"],
            target="dog",
            audit=False,  # type: ignore[arg-type]
        )
        assert (found.result.target, found.result.target_name) == (1, "dog")
        assert found.result.left_out == int((y == 1).sum())
    with pytest.raises(ConfigError, match="no class is called 'dgo'"):
        api.attack(net, x, y, radii=[0.1], target="dgo")
    with pytest.raises(DataError, match=r"labels are words \('"):
        api.attack(scene[0], x, words, radii=[0.1])
    with pytest.raises(ConfigError, match="target: 'dog': give the class by its number"):
        api.attack(scene[0], x, y, radii=[0.1], target=np.str_("dog"))
