"""Projection onto a hyperplane inside the box, for minimum-norm attacks (DeepFool, FAB)."""

from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.ball import Norm


def onto_plane(point: Tensor, normal: Tensor, rise: Tensor, norm: Norm) -> Tensor:
    """(n, C, H, W) the smallest δ with normal·δ = rise and point + δ in [0, 1].

    See Croce & Hein (2020), "Minimally distorted adversarial examples", equation 4. If the box does
    not reach the plane, δ leads to the corner nearest to it. point and normal are (n, C, H, W),
    rise is (n,). In linf and l2 the solution is sign·min(t·u, room) with u = 1 or |normal|, where
    `room` is the distance to the box. Newton's method finds t from below: the entries that have
    reached their room are fixed, and t is computed from the others. In l1 the entries with the
    steepest slope go to their room first. δ is zero where the normal is zero.
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
    length = _steepest_first(steep, need, room) if norm == "l1" else _by_newton(steep, need, room, norm)
    return (towards.sign() * length).reshape(shape)


def _by_newton(steep: Tensor, need: Tensor, room: Tensor, norm: Norm) -> Tensor:
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
