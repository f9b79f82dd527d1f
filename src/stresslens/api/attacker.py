"""Attacks on any module or run, and the recount of adversarial images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from stresslens.api.arguments import is_radii, is_word, path_of
from stresslens.api.arrays import Images, Labels
from stresslens.api.progress_bar import Progress, shown
from stresslens.api.runs import Run
from stresslens.api.subjects import (
    DataNow,
    ModelLike,
    card_of,
    images_for,
    is_path,
    model_of,
    run_behind,
    run_of,
)
from stresslens.api.words import public_call
from stresslens.config.function_files import with_names
from stresslens.config.threat_model import resolved_threat_model, with_known_names
from stresslens.core.ball import Norm, single_radius
from stresslens.core.class_names import names_of
from stresslens.core.copies import eager_module, usable_module
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.progress import advance
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import split_named
from stresslens.evaluation.finished_run import open_run
from stresslens.evaluation.inputs import check_inputs, returning_logits
from stresslens.report.page import write_reports_of
from stresslens.robustness import verification
from stresslens.robustness.attack_run import attack_run, audited, audited_mode, robustness_config
from stresslens.robustness.measure import measure
from stresslens.robustness.result import AttackResult
from stresslens.robustness.result_file import attacked_images
from stresslens.robustness.verification import Verification

OWN_IMAGES = 1000
"""Images of a run's own that are attacked, unless the call says how many."""


# long: what the caller gives is told apart, one kind after the other
@public_call()
def attack(
    model: ModelLike,
    images: Images | Split | None = None,
    labels: Labels | None = None,
    radii: str | float | Sequence[float | str] | None = None,
    *,
    norm: str = "linf",
    protocol: str | Sequence[Any] = "fast",
    out: str | os.PathLike[str] | None = None,
    surrogate: ModelLike | None = None,
    n_images: int | Literal["all"] | None = None,
    data: DataNow = None,
    trust: bool = False,
    module: nn.Module | None = None,
    progress: Progress = True,
    **options: Any,
) -> AttackResult:
    """Finds the smallest radius that breaks each image, for any nn.Module from images in [0, 1] to logits,
    or for a run.

    `images` (N, C, H, W) float in [0, 1] or uint8 with `labels` (N,), or a Split; for a run also pictures of
    any size, as in `predict`. Without images a run is attacked on its own test images (or another `split`),
    as `stresslens attack` does: the result is kept in its folder and shown in its report, and a call that
    was killed resumes. `data` says where these images lie now, or holds them.

    `radii` are in pixel units: "8/255", [0, 0.05] or "0:0.1:0.01"; `attack(run, "8/255")` is a call too.
    `n_images` are drawn at random, by default all that are given, and 1,000 of a run's own. `options` are
    those of `robustness:` in a study file (individual_attacks, target, success, eot_samples, bpda, seed);
    audit=False leaves out the audits, which take longer than the attack. With `out`, a folder, the result on
    given images is kept there, and a call that was killed resumes. `progress` is as in `train`, `trust` and
    `module` as in `load`. The model
    is unchanged afterwards. Raises ConfigError and DataError, before anything is computed, for what cannot
    be attacked."""
    run = run_behind(model, trust=trust, module=module, data=data)
    home = None if out is None else path_of(out, "out")
    if radii is None and labels is None and is_radii(images):
        images, radii = None, images
    if labels is None and is_word(images):
        raise ConfigError(f"images is {images!r}; choose attacks by protocol=, radii by radii='8/255'")
    if radii is None:
        raise ConfigError("give radii in pixel units, for example radii='8/255' or radii=[0, 0.05, 0.1]")
    values = {
        **options,
        "radii": list(radii) if isinstance(radii, Sequence) and not isinstance(radii, str) else radii,
        "norm": norm,
        "protocol": protocol if isinstance(protocol, str) else list(protocol),
    }
    values = with_names(values, run.folder if images is None and run is not None else home)
    if images is None and run is not None:
        if labels is not None or out is not None:
            raise ConfigError(
                "labels and out belong to images of your own; the result on a run's own images is kept in "
                "its folder"
            )
        values["images"] = OWN_IMAGES if n_images is None else n_images
        with shown(progress):
            return _attack_own(run, values, surrogate, trust)
    if data is not None:
        raise ConfigError("data are those of a run that is attacked on its own images; leave them out")
    for name, instead in (
        ("split", "give the images themselves"),
        ("certificates", "they belong to a run's own images: sl.attack(run, certificates=…)"),
    ):
        if name in options:
            raise ConfigError(f"attack has no option {name!r} for these images: {instead}")
    if images is None:
        raise ConfigError("attack needs images and their labels; only a run has its own")
    values["images"] = "all" if n_images is None else n_images
    net: Any = model_of(model) if run is None else run.model()
    other = None if surrogate is None else _lender(surrogate, trust)
    net, card = usable_module(net), None if run is None else card_of(run)
    split = check_inputs(net, images_for(card, images), labels).uncached()
    with shown(progress):
        return _attack(net, split, values, other, home)


def _attack(
    model: nn.Module, split: Split, values: dict[str, Any], surrogate: nn.Module | None, home: Path | None
) -> AttackResult:
    """Attacks a module on given images."""
    asked = robustness_config(values)
    threat = with_known_names(resolved_threat_model(asked, Path.cwd()), names_of(model))
    model = eager_module(model)
    surrogate = None if surrogate is None else eager_module(surrogate)
    try:
        with returning_logits(model, split), returning_logits(surrogate, split):
            robust, place = measure(
                model,
                split,
                threat,
                home=home,
                surrogate=surrogate,
                on_progress=lambda decided, total: advance("attacking", decided, total),
            )
            if robust.result.audited:
                robust = audited_mode(robust, model, split)
            elif asked.audit:
                robust = audited(robust, model, split, threat, surrogate=surrogate)
                if place is not None:
                    robust.save(place)
    except KeyboardInterrupt:
        kept = "nothing is kept; with out='folder' the same call goes on"
        if home is not None:
            kept = f"what was attacked is kept in {home}, and the same call goes on"
        raise KeyboardInterrupt(f"stopped: {kept}") from None
    return robust


def _lender(surrogate: Any, trust: bool) -> nn.Module:
    """The model on which a transfer attack is made."""
    net: nn.Module = usable_module(model_of(surrogate, what="surrogate", trust=trust))
    return net


def _attack_own(run: Run, values: dict[str, Any], surrogate: Any, trust: bool) -> AttackResult:
    """Attacks a run on images of its own data."""
    other: nn.Module | None = None
    if surrogate is not None:
        lender = None
        if is_path(surrogate):
            lender = run_of(surrogate, what="surrogate", trust=trust)
        if lender is None or lender.module is not None:
            other = _lender(surrogate, trust)
        else:
            values["surrogate"] = str(lender.folder)
    try:
        found = attack_run(
            RunFolder(run.folder),
            robustness_config(values),
            base=Path.cwd(),
            trust=run.trust,
            module=run.module,
            data=run.data_now,
            surrogate=other,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: what was attacked is kept in {run.folder}, and the same call goes on"
        ) from None
    write_reports_of(run.folder)
    return found


@public_call()
def verify(
    model: ModelLike,
    adversarials: Tensor | np.ndarray | AttackResult | str | os.PathLike[str],
    images: Images | None = None,
    labels: Labels | None = None,
    *,
    eps: float | str | Tensor | np.ndarray | None = None,
    norm: Norm | None = None,
    claimed: float | None = None,
    split: str = "test",
    data: DataNow = None,
    trust: bool = False,
    module: nn.Module | None = None,
) -> Verification:
    """Recounts given adversarial images: are they inside ball and box, and what does the model answer in
    float32?

    All arrays have one entry an image; `eps` is one radius, or one for each image; `norm` is "linf"
    unless something else is said; `claimed` is a published robust accuracy to compare with, a share, or
    in percent if it is above 1. For a run, the adversarial images may also be an npz file, as for
    `stresslens verify`, the result of `attack` on the run's own images, or an array without `images`: of
    the first images of its `split`. `data` says where that lies now, `trust` and `module` are as in `load`.
    Raises ConfigError and DataError for what cannot be read."""
    run = run_behind(model, trust=trust, module=module, data=data)
    if run is not None and images is None:
        if labels is not None:
            raise ConfigError("labels belong to images of your own; leave them out, or give the images too")
        return _verify_own(run, adversarials, eps, norm, claimed, split)
    if isinstance(adversarials, str | os.PathLike):
        raise ConfigError("a file of adversarial images is recounted with a run, and without images")
    if images is None or labels is None or eps is None:
        raise ConfigError("verify needs the images, their labels and eps; only a run has images of its own")
    net = usable_module(model_of(model) if run is None else run.model())
    given = images_for(None if run is None else card_of(run), images)
    return verification.verify(
        net, adversarials, given, labels, eps=eps, norm=norm or "linf", claimed=claimed
    )


def _verify_own(
    run: Run, adversarials: Any, eps: Any, norm: Norm | None, claimed: float | None, split: str
) -> Verification:
    """Recounts adversarial images of a run's own split."""
    net, data = open_run(RunFolder(run.folder), trust=run.trust, module=run.module, data=run.data_now)
    images = split_named(data, split)
    if isinstance(adversarials, str | os.PathLike):
        arrays = verification.read_adversarials(Path(adversarials))
    elif isinstance(adversarials, AttackResult):
        found = verification.named_arrays(attacked_images(adversarials.arrays))
        arrays = {**found, "norm": adversarials.result.norm}
    else:
        pixels = adversarials.detach().cpu() if isinstance(adversarials, Tensor) else adversarials
        arrays = {"adversarials": np.asarray(pixels), "norm": "linf"}
    return verification.verify_run(
        net,
        images,
        arrays,
        norm=norm,
        eps=None if eps is None else single_radius(eps),
        claimed=claimed,
        others={name: other for name, other in data.splits.items() if name != split},
        name=split,
    )
