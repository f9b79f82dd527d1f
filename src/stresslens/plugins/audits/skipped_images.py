from __future__ import annotations

import numpy as np

from stresslens.core.evidence import Curve, Probe, groups
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._left_out import standing_out
from stresslens.plugins.audits.reference_wins import REFERENCE

AUDIT = "skipped images"


def skipped_images(curve: Curve, probe: Probe) -> Finding:
    """FGSM and PGD of 40 steps break images that the result counts as robust.

    Unlike *reference wins*, which attacks a sample again by itself, this looks at the survivors of
    the result: an attack may leave out some of its images, by their place in its batch or by their
    class. The reference attacks survivors of all classes in turn, at the radius of the result that
    leaves closest to half of the images standing. A sign from two images on. Serious from a
    twentieth of the survivors attacked (at least three), or if those that break stand out by their
    class or place (hypergeometric test, 1 % over all groups).
    """
    right = curve.smallest > 0
    radii = [eps for eps in curve.radii if eps > 0]
    if curve.targeted:
        return not_checked(AUDIT, "only the target class counts as success; the reference has no target")
    if len(curve.smallest) != len(probe.given[1]) or not radii or not right.any():
        return not_checked(AUDIT, "needs the result's own images, and a radius above 0")
    eps = min(radii, key=lambda eps: (abs(float(curve.robust(eps)[right].mean()) - 0.5), -eps))
    standing = np.flatnonzero(curve.robust(eps))
    if len(standing) < 2:
        return not_checked(AUDIT, f"fewer than two images survive radius {eps:g}")
    part = probe.among(standing)
    broken, _ = part.broken(REFERENCE, eps)
    n, count = len(broken), int(broken.sum())
    evidence = (
        f"of {len(standing):,} images that survive radius {eps:g}, {n:,} were attacked with FGSM and PGD of "
        f"40 steps, which break {count:,}"
    )
    if count < 2:
        return no_sign(AUDIT, evidence, n)
    where = standing_out(_counts(curve, right, part, broken), (count, n))
    if where:
        evidence += f"; they stand out in {', '.join(where)}"
    return sign(
        AUDIT,
        evidence,
        n,
        "The attack leaves out some of its images, or hardly attacks them. Check its loop over batches (the "
        "last and partial one too), filters, masks, the order of images and gradients, and exceptions that "
        "end it early.",
        serious=count >= max(3, 0.05 * n) or bool(where),
        items=[f"image {position}" for position in part.positions[broken][:8]],
    )


def _counts(curve: Curve, right: np.ndarray, part: Probe, broken: np.ndarray) -> dict[str, tuple[int, int]]:
    """How many images of each group break, of how many attacked. The batch of an attack has the
    right images of a chunk, in their order."""
    size = curve.chunk or len(right)
    start = part.positions // size * size
    before = np.concatenate([[0], np.cumsum(right)])
    places = before[part.positions] - before[start]
    most = int((before[np.minimum(start + size, len(right))] - before[start]).max())
    found = groups(part.labels.cpu().numpy(), places, most)
    return {name: (int(broken[group].sum()), int(group.sum())) for name, group in found.items()}
