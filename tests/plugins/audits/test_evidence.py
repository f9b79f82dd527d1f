"""Curves and traces written by hand: what each audit of them sees, and from when on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sound import bound, images, mlp, signs, trained
from torch import Tensor, nn

from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.evidence import Curve, Trace
from stresslens.robustness.audit import ExtraAttackProbe, audit

INF = np.inf


def curve(
    counts: dict[float, int],
    *,
    by: int = 0,
    attacks: tuple[str, ...] = ("pgd",),
    asked: int | None = None,
    **more: object,
) -> Curve:
    """So many images broken first at each radius (0: wrong unattacked, inf: never), all by one attempt."""
    smallest = np.repeat(list(counts), list(counts.values())).astype(float)
    radii = tuple(sorted(eps for eps in counts if 0 < eps < INF))
    place = np.where((smallest > 0) & np.isfinite(smallest), by, -1)
    norm = more.pop("norm", "linf")
    return Curve(norm, radii, smallest, place, attacks, len(smallest) if asked is None else asked, **more)  # type: ignore[arg-type]


def of_curve(some: Curve, *severities: str) -> set[str]:
    found = audit(curve=some)
    return {finding.audit for finding in found if finding.severity in (severities or ("serious", "minor"))}


@pytest.mark.parametrize(
    ("expected", "some"),
    [
        ("flat curve", curve({0: 50, 0.1: 50, 1.0: 5, INF: 895})),
        ("flat curve", curve({0: 50, 0.5: 300, INF: 650})),
        ("flat curve", curve({0: 50, 0.5: 300, INF: 650}, labels=np.arange(1000) % 10)),
        ("steps at origin", curve({0: 50, 0.001: 300, 0.01: 100, 0.1: 50, INF: 500})),
        ("black box wins", curve({0: 50, 0.1: 10, INF: 940}, by=1, attacks=("pgd", "square"))),
        ("clean accuracy", curve({0: 50, 0.1: 10, INF: 940}, reported=0.955)),
        ("dropped images", curve({0: 50, 0.1: 10, INF: 940}, asked=1001)),
        ("perfect when clean", curve({0.1: 100, INF: 900})),
        ("one attack", curve({0: 50, 0.1: 10, INF: 940}, attacks=("fgsm",))),
        ("repeated images", curve({0: 50, 0.1: 10, INF: 940}, repeated=2)),
    ],
)
def test_each_sign_of_a_curve(expected: str, some: Curve) -> None:
    assert expected in of_curve(some)


def test_only_what_cannot_be_is_a_serious_flat_curve() -> None:
    """At linf 0.5 the images of one class can stay correct; a bimodal margin is flat in between."""
    dark, bright = np.zeros(750, dtype=int), np.ones(250, dtype=int)
    some = {0.1: 250, 0.3: 0, 0.5: 0, INF: 750}
    of_one_class = curve(some, labels=np.concatenate([bright, dark]))
    of_both = curve(some, labels=np.arange(1000) % 2)
    assert of_curve(of_one_class, "serious") == set()
    assert of_curve(of_one_class, "minor") >= {"flat curve"}
    assert of_curve(of_both, "serious") == {"flat curve"}
    (found,) = audit(curve=curve(some, targeted=True), only=["flat curve"])
    assert found.status == "not checked"


@pytest.mark.parametrize(
    "some",
    [
        curve({0: 50, 0.05: 200, 0.1: 300, 0.2: 400, INF: 50}),
        curve({0: 50, 0.01: 2, 0.1: 5, INF: 943}),  # a very robust model, at small radii
        curve({0: 50, 0.001: 300, 0.01: 600, 0.1: 50}),  # a brittle one: nothing is left to break
        curve({0: 50, 0.1: 1, INF: 949}, by=1, attacks=("pgd", "square")),  # one image
        curve({0: 50, 0.1: 100, INF: 850}, by=0, attacks=("square", "pgd")),  # square came first
        curve({0: 50, 0.1: 100, INF: 850}, reported=0.951),  # one image
        curve({0.1: 50, INF: 950}, reported=1.0),
        curve({0: 1, 0.5: 40, 1.0: 59}, norm="l2"),
    ],
)
def test_what_is_no_sign_of_a_curve(some: Curve) -> None:
    assert of_curve(some) == set()


def test_three_images_of_a_thousand_are_minor_and_thirty_are_serious() -> None:
    for images_broken, severity in ((3, "minor"), (30, "serious")):
        some = curve(
            {0: 50, 0.1: images_broken, INF: 950 - images_broken}, by=1, attacks=("apgd ce", "square")
        )
        assert "black box wins" in of_curve(some, severity)


def trace(**changes: object) -> Trace:
    values = {
        "attack": "pgd 40",
        "options": {"steps": 40},
        "eps": 0.1,
        "n": 500,
        "broke": 100,
        "excess": 1.0,
        "gradients": 9000,
    }
    return Trace(**{**values, **changes})  # type: ignore[arg-type]


def of_trace(*some: Trace) -> set[str]:
    return signs(audit(trace=some, curve=curve({0: 500, 0.1: 100, INF: 400})))


@pytest.mark.parametrize(
    ("expected", "some"),
    [
        ("zero gradients", trace(zero_at_start=2)),
        ("zero gradients", trace(zero_on_path=20)),
        ("zero gradients", trace(attack="fab by name alone", zero_on_path=20, may_be_flat=False)),
        ("outside the ball", trace(outside=2, excess=3.2)),
        ("unused radius", trace(excess=0.31)),
        ("silent success", trace(silent=2)),
        ("short steps", trace(options={"steps": 10, "step_size": 0.01})),
        ("short steps", trace(options={"steps": 10, "relative_step": 0.1})),
        ("still rising", trace(followed=400, rising=60)),
        ("still rising", trace(followed=8, rising=4)),
    ],
)
def test_each_sign_of_a_trace(expected: str, some: Trace) -> None:
    assert of_trace(trace(), some) == {expected}


@pytest.mark.parametrize(
    "some",
    [
        trace(),
        trace(zero_at_start=1, silent=1, outside=1),
        trace(attack="apgd t", options={"loss": "dlr_targeted"}, zero_on_path=50),  # flat where y ranks third
        trace(attack="one's own", zero_on_path=50, may_be_flat=True),
        trace(attack="noise", gradients=0, excess=0.2),
        trace(attack="fab", excess=0.4),  # looks for the smallest
        trace(excess=0.5, n=100, broke=97),  # hardly any image left
        trace(options={"steps": 20, "step_size": 0.01}),
        trace(followed=400, rising=39),
        trace(followed=8, rising=2),
        trace(silent=50, passes=20),  # of a random model: other draws
    ],
)
def test_what_is_no_sign_of_a_trace(some: Trace) -> None:
    assert of_trace(some) == set()


def test_nothing_silent_is_told_of_a_random_model() -> None:
    (found,) = audit(trace=[trace(silent=50, passes=20)], only=["silent success"])
    assert (found.status, "random" in found.evidence) == ("not checked", True)


# More attacks


class Veiled(nn.Module):
    """A net whose gradient is that of another: attacks on it are led astray, those made elsewhere are not."""

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.net, self.other = net, other
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        shown, true = self.other(x), self.net(x.detach())
        return true.detach() + shown - shown.detach()


def probed(
    model: nn.Module, protocol: tuple[object, ...], radii: tuple[float, ...] = (0.05, 0.1), **more: object
) -> ExtraAttackProbe:
    _, (x, y) = images()
    return ExtraAttackProbe(model, x, y, "linf", radii, protocol, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    train, _ = images()
    return trained(mlp(10), train), trained(mlp(10), train)


@pytest.mark.slow
def test_veiled_gradients_are_seen_by_other_attacks(nets: tuple[nn.Module, nn.Module]) -> None:
    net, _ = nets
    torch.manual_seed(1)
    model = Veiled(net, mlp(10).eval())  # the gradients of an untrained net
    probe = probed(model, ("fgsm", {"pgd": {"steps": 20}}), surrogate=net)
    expected = {"transfer wins", "square wins", "noise wins"}
    assert signs(audit(probe=probe, only=sorted(expected)), "serious") == expected


def gives_up(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Takes fewer of its ten steps the larger the radius is."""
    z, steps = x, 10 if float(ball.radius(x).max()) < 0.08 else 1
    for _ in range(steps):
        point = z.clone().requires_grad_()
        grad = torch.autograd.grad(nn.functional.cross_entropy(model(point), y), point)[0]
        z = ball.project(z + 0.02 * grad.sign(), x)
    return z


def test_a_smaller_radius_that_breaks_more_is_seen(nets: tuple[nn.Module, nn.Module]) -> None:
    found = signs(audit(probe=probed(nets[0], (bound(gives_up),)), only=["ladder rises", "doubled steps"]))
    assert found == {"ladder rises"}


def test_what_was_met_and_not_returned_is_seen_where_attacks_stop_early(
    nets: tuple[nn.Module, nn.Module],
) -> None:
    def forgets(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
        point = x.clone().requires_grad_()
        grad = torch.autograd.grad(nn.functional.cross_entropy(model(point), y), point)[0]
        model(ball.project(x + ball.radius(x) * grad.sign(), x))
        return x

    assert signs(audit(probe=probed(nets[0], (bound(forgets),)), only=["not returned"])) == {"not returned"}
    (found,) = audit(probe=probed(nets[0], (bound(forgets),), passes=2), only=["not returned"])
    assert (found.status, "random" in found.evidence) == ("not checked", True)


def test_a_probe_shares_what_it_found_and_counts_its_time(nets: tuple[nn.Module, nn.Module]) -> None:
    probe = probed(nets[0], ("fgsm",))
    assert probe.broken(("fgsm",), 0.05)[1][0] is probe.broken(["fgsm", "noise"], 0.05)[1][0]
    spent = probe.spent
    probe.broken(("fgsm", "noise"), 0.05)
    assert probe.spent == spent > 0


def test_a_probe_draws_right_images_of_all_classes_whatever_their_order(
    nets: tuple[nn.Module, nn.Module],
) -> None:
    _, (x, y) = images()
    order = y.argsort(stable=True)
    probes = [
        ExtraAttackProbe(nets[0], x[place], y[place], "linf", (0.1,), ("fgsm",), size=60)
        for place in (torch.arange(len(x)), order)
    ]
    for probe, place in zip(probes, (torch.arange(len(x)), order)):
        assert bool((nets[0](probe.images).argmax(1) == probe.labels).all())
        assert torch.equal(x[place][probe.positions], probe.images)
        assert set(probe.labels.bincount().tolist()) <= {
            5,
            6,
            7,
        }  # the classes in turn, the wrong ones left out
    assert torch.equal(probes[0].images.sum((1, 2, 3)).sort()[0], probes[1].images.sum((1, 2, 3)).sort()[0])
    part = probes[1].among(np.arange(30))
    assert len(part.labels) == 30
    assert set(part.positions) == set(range(30))
    assert part.labels.unique().tolist() == y[order][:30].unique().tolist()


def test_an_infinite_radius_holds_every_image(nets: tuple[nn.Module, nn.Module]) -> None:
    _, (x, y) = images()

    def black(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)

    blank = int(nets[0](torch.zeros(1, 1, 8, 8)).argmax())
    for norm in ("linf", "l2", "l1"):
        probe = ExtraAttackProbe(nets[0], x, y, norm, (0.1,), (bound(black),))  # type: ignore[arg-type]
        broken, traces = probe.broken(probe.protocol, float("inf"))
        assert traces[0].outside == 0
        assert (broken == (probe.labels != blank).numpy()).all()


def test_too_few_right_images_are_said(nets: tuple[nn.Module, nn.Module]) -> None:
    x = images()[1][0]
    probe = ExtraAttackProbe(nets[0], x, (nets[0](x).argmax(1) + 1) % 10, "linf", (0.1,), ("fgsm",))
    for finding in audit(probe=probe):
        assert finding.status == "not checked"


def test_a_name_that_is_no_audit() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        audit(only=["short step"])


def test_scores_that_are_not_finite_are_named() -> None:
    counts = {0.0: 2, 0.1: 5, INF: 93}
    missing = np.arange(100) < 4  # two wrong without attack, two broken
    met = [Trace("pgd", {}, 0.1, 98, broke=5, no_answer=1)]
    (found,) = audit(curve=curve(counts, no_answer=missing), trace=met, only=["no answer"])
    assert (found.severity, found.n) == ("serious", 100)
    assert (
        "of 2 of 100 images are not finite (NaN or infinity) without attack, and those of 2" in found.evidence
    )
    nothing = np.zeros(100, dtype=bool)
    (found,) = audit(curve=curve(counts, no_answer=nothing), trace=met, only=["no answer"])
    assert found.severity == "minor"
    for trace, known, status in (
        ([Trace("pgd", {}, 0.1, 98)], nothing, "no sign"),
        (met, None, "not checked"),
    ):
        (found,) = audit(curve=curve(counts, no_answer=known), trace=trace, only=["no answer"])
        assert found.status == status


def test_a_surrogate_of_other_classes_is_seen(nets: tuple[nn.Module, nn.Module]) -> None:
    class Exchanged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nets[1](x).roll(1, 1)

    for other, expected in ((nets[1], set()), (Exchanged(), {"surrogate"})):
        probe = probed(nets[0], ("fgsm",), surrogate=other)
        assert signs(audit(probe=probe, only=["surrogate"]), "serious") == expected
