"""Parts of students against their references: right ones pass, and each usual mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from parts_of_students import ATTACK, CONVOLUTION, GRADIENT, LOSS, MODEL, PGD, RIGHT, WRONG

from stresslens.config import registry
from stresslens.config.known_plugins import must_be_told
from stresslens.core.errors import ConfigError
from stresslens.core.types import Finding
from stresslens.labs.agreement import unlike
from stresslens.labs.part import KINDS, lab_of
from stresslens.labs.part_process import check_part


def findings(source: str, folder: Path) -> dict[str, Finding]:
    """What the check finds, executed in this process."""
    file = folder / "own.py"
    file.write_text(source)
    (part,) = lab_of(file).parts
    return {finding.audit: finding for finding in check_part(part, file)}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_part_has_no_serious_finding(name: str, tmp_path: Path) -> None:
    found = findings(RIGHT[name], tmp_path)
    assert found
    assert {audit for audit, finding in found.items() if finding.severity == "serious"} == set()


@pytest.mark.breadth(20)
@pytest.mark.parametrize("name", [name for name in WRONG if name != "ends the process"])
def test_a_mistake_is_named(name: str, tmp_path: Path) -> None:
    source, expected = WRONG[name]
    found = findings(source, tmp_path)
    for audit, words in expected.items():
        assert found[audit].severity == "serious", found
        assert words in " ".join([found[audit].evidence, *found[audit].items])


def test_every_kind_has_a_right_part_and_a_wrong_one(tmp_path: Path) -> None:
    (tmp_path / "right").mkdir()
    for k, source in enumerate(RIGHT.values()):
        (tmp_path / "right" / f"{k}.py").write_text(source)
    assert {part.kind for part in lab_of(tmp_path).parts} == set(KINDS)
    assert {name.partition(":")[0] for name in WRONG} >= set(KINDS)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_our_own_gradient_passes(loss: str, net: str, tmp_path: Path) -> None:
    source = (
        f"# part: gradient {loss} net={net}\n"
        "from stresslens.plugins.objectives.by_hand import by_hand\n\n\n"
        f"def own(net, inputs, y):\n    return by_hand(net, inputs, y, loss={loss!r})\n"
    )
    assert {finding.severity for finding in findings(source, tmp_path).values()} == {"none"}


def test_our_own_convolution_passes_in_everything(tmp_path: Path) -> None:
    source = "# part: convolution\nfrom stresslens.plugins.models._unfold import UnfoldConv2d\n\n\n"
    found = findings(source + "class Own(UnfoldConv2d):\n    pass\n", tmp_path)
    assert {finding.severity for finding in found.values()} == {"none"}
    assert "pairs" in found
    assert "1.0 times as much as torch" in found["memory"].evidence


def test_columns_that_are_kept_are_told(tmp_path: Path) -> None:
    assert "8.5 times as much" in findings(CONVOLUTION, tmp_path)["memory"].evidence


@pytest.mark.parametrize(
    "name", [name for name in registry.names("optimizers") if not must_be_told("optimizers", name)]
)
def test_every_built_in_optimizer_is_known_without_a_name(name: str, tmp_path: Path) -> None:
    source = (
        f"# part: optimizer\nfrom stresslens.plugins.optimizers.{name} import {name}\n\n\n"
        f"def own(parameters, lr):\n    return {name}(parameters, lr)\n"
    )
    found = findings(source, tmp_path)["steps"]
    assert found.severity == "none", found


@pytest.mark.breadth(1)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_our_own_attacks_pass_in_every_norm(name: str, norm: str, tmp_path: Path) -> None:
    source = (
        f"# part: attack norm={norm}\nfrom stresslens.plugins import Attack\n\n\n"
        f"def own(model, x, y, ball, draws, watch, target, *, attack: Attack = {name!r}):\n"
        "    given = {'ball': ball, 'draws': draws, 'watch': watch, 'target': target}\n"
        "    return attack(model=model, x=x, y=y, **given)\n"
    )
    found = findings(source, tmp_path)
    assert {finding.audit for finding in found.values() if finding.severity == "serious"} == set(), found


def test_an_attack_for_linf_fails_in_l2(tmp_path: Path) -> None:
    source = ATTACK.replace("attack fgsm", "attack norm=l2 eps=0.7").replace(
        "ball.project(x.detach() + ball.radius(x) * slope.sign(), x.detach())",
        "(x + ball.radius(x) * slope.sign()).detach().clamp(0, 1)",
    )
    assert "outside the ball" in findings(source, tmp_path)["ball and box"].evidence


def test_few_short_steps_are_weak_but_no_mistake(tmp_path: Path) -> None:
    found = findings(PGD.replace("int = 20", "int = 2"), tmp_path)["margin lost"]
    assert found.severity == "minor"
    assert "40 % of the largest possible" in found.evidence


def test_the_shape_of_a_model_can_be_given(tmp_path: Path) -> None:
    found = findings(MODEL.replace("first_cnn shape=3x32x32 classes=10", "shape=1x28x28 classes=4"), tmp_path)
    assert "logits (5, 4)" in found["output"].evidence


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("gradient mse depth=3", "has no option 'depth'"),
        ("gradient mean_square", "no loss is called 'mean_square'"),
        ("loss mse: 3}", "expected"),
        ("convolution conv2d", "has no reference to name"),
        ("model shape=3x32", "option shape=3x32"),
        ("model parameters=many", "option parameters=many"),
        ("attack norm=l3", "option norm=l3"),
        ("attack own.py:own", "--trust"),
    ],
)
def test_a_wrong_line_is_told(line: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        findings(f"# part: {line}\ndef own(x):\n    return x\n", tmp_path)


def test_a_gradient_for_one_kind_of_net_fails_on_another(tmp_path: Path) -> None:
    found = findings(GRADIENT.replace("gradient mse", "gradient mse net=mlp"), tmp_path)
    assert any(finding.severity == "serious" for finding in found.values())


def test_a_loss_without_a_reference_is_recognised(tmp_path: Path) -> None:
    assert "cross_entropy" in findings(LOSS.replace(" cross_entropy", ""), tmp_path)["reference"].evidence


def test_what_differs_is_said() -> None:
    import torch

    theirs = torch.tensor([1.0, -2.0, 3.0])
    assert unlike(theirs.clone(), theirs) is None
    assert unlike(theirs + 1e-7, theirs) is None
    assert "3 times the reference" in str(unlike(3 * theirs, theirs))
    assert "-1 times the reference" in str(unlike(-theirs, theirs))
    assert "0.1 times the reference (1/10)" in str(unlike(0.1 * theirs, theirs))
    assert "times" not in str(unlike(theirs.flip(0), theirs))
    assert "shape is (3, 1)" in str(unlike(theirs[:, None], theirs))
    assert "1 of its 3 values are not finite" in str(unlike(theirs / torch.tensor([1, 0, 1]), theirs))
    assert "type float" in str(unlike(1.0, theirs))


@pytest.mark.parametrize(
    ("kind", "general", "digits"),
    [
        ("gradient", "inputs.flatten(1)", "inputs.view(-1, 64)"),
        ("gradient", "difference.numel()", "(len(a) * 10)"),
        ("loss", "[torch.arange(len(y)), y].mean()", ".mul(torch.eye(10)[y]).sum(1).mean()"),
    ],
)
def test_a_part_for_the_digits_alone_is_right_with_a_remark(
    kind: str, general: str, digits: str, tmp_path: Path
) -> None:
    source = {"gradient": GRADIENT, "loss": LOSS}[kind]
    assert general in source
    found = findings(source.replace(general, digits), tmp_path)
    assert {each.audit for each in found.values() if each.severity == "serious"} == set()
    assert found["other sizes"].severity == "minor"
    assert "it works for 64 inputs and 10 classes only" in found["other sizes"].evidence
    assert findings(source, tmp_path)["other sizes"].severity == "none"


def test_a_gradient_for_another_size_is_checked_at_that_size(tmp_path: Path) -> None:
    source = GRADIENT.replace("flatten(1)", "view(-1, 3072)")
    assert findings(source, tmp_path)["execution"].severity == "serious"
    found = findings(source.replace("gradient mse", "gradient mse shape=3x32x32 classes=4"), tmp_path)
    assert "for 3072 inputs and 4 classes only" in found["other sizes"].evidence


def test_an_attack_may_know_that_there_are_ten_classes(tmp_path: Path) -> None:
    source = (
        "# part: attack fgsm\nimport torch\nfrom torch.nn.functional import one_hot\n\n\n"
        "def own(model, x, y, ball):\n"
        "    x = x.clone().requires_grad_()\n"
        "    loss = -(model(x).log_softmax(1) * one_hot(y, 10)).sum()\n"
        "    (slope,) = torch.autograd.grad(loss, x)\n"
        "    return ball.project(x.detach() + ball.radius(x) * slope.sign(), x.detach())\n"
    )
    found = findings(source, tmp_path)
    assert {each.audit for each in found.values() if each.severity != "none"} == set(), found
