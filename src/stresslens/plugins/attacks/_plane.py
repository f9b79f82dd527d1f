"""The smallest way to a plane inside the box, on which the attacks of smallest perturbation stand."""

from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.ball import Norm


def onto_plane(point: Tensor, normal: Tensor, rise: Tensor, norm: Norm) -> Tensor:
    """(n, C, H, W) the smallest δ with normal·δ = rise and point + δ in [0, 1]; where the box does
    not reach the plane, δ to the corner nearest to it (Croce & Hein 2020, "Minimally distorted
    adversarial examples", equation 4).

    point, normal (n, C, H, W); rise (n,). In linf and l2 the answer is sign·min(t·u, room) with u =
    1 or |normal|, and Newton's method from below finds t: with those entries at their room that are
    there already, t follows. In l1 the steepest entries go to their room first. Zero where the
    normal is.
    """
    shape, flat = point.shape, normal.flatten(1)
    towards = flat * torch.where(rise < 0, -1.0, 1.0).to(flat.dtype)[:, None]
    tiny = torch.finfo(flat.dtype).tiny
    largest = towards.abs().amax(1, keepdim=True).clamp_min(tiny)
    steep, need = (
        towards.abs() / largest,
        (rise.abs() / largest.squeeze(1)).clamp_max(torch.finfo(flat.dtype).max),
    )
    start = point.flatten(1)
    room = torch.where(towards > 0, 1 - start, start) * (steep > 0)
    length = _steepest_first(steep, need, room) if norm == "l1" else _evenly(steep, need, room, norm)
    return (towards.sign() * length).reshape(shape)


def _evenly(steep: Tensor, need: Tensor, room: Tensor, norm: Norm) -> Tensor:
    unit = (steep > 0).to(steep.dtype) if norm == "linf" else steep
    tiny, huge = torch.finfo(steep.dtype).tiny, torch.finfo(steep.dtype).max ** 0.5
    gain, rise = steep * room, steep * unit
    share = (need / rise.sum(1).clamp_min(tiny)).clamp_max(huge)
    for _ in range(steep.shape[1]):
        full = unit * share[:, None] > room
        if not full.any():
            break
        further = ((need - (gain * full).sum(1)) / (rise * ~full).sum(1).clamp_min(tiny)).clamp_max(huge)
        grows = further > share
        share = torch.where(grows, further, share)
        if not grows.any():
            break
    return torch.minimum(unit * share[:, None], room)


def _steepest_first(steep: Tensor, need: Tensor, room: Tensor) -> Tensor:
    steepest, order = steep.sort(1, descending=True)
    gain = room.gather(1, order) * steepest
    left = (need[:, None] - (gain.cumsum(1) - gain)).clamp_min(0)
    moved = torch.minimum(left / steepest.clamp_min(torch.finfo(steep.dtype).tiny), room.gather(1, order))
    return torch.zeros_like(steep).scatter_(1, order, moved)
