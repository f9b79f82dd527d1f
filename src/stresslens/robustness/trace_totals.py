"""Traces of the chunks of an attack, merged to one for each attack and radius."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from stresslens.core.evidence import Trace


def merged_traces(chunks: Sequence[Sequence[Trace]]) -> list[Trace]:
    """The traces of all chunks, merged to one for each attack and radius; counts are added."""
    merged: dict[tuple[str, float], Trace] = {}
    for trace in [trace for k, traces in enumerate(chunks) for trace in _named(traces, k)]:
        total = merged.get((trace.attack, trace.eps))
        if total is None:
            merged[trace.attack, trace.eps] = replace(trace)
            continue
        counted = (
            "n",
            "broke",
            "outside",
            "silent",
            "untouched",
            "no_answer",
            "zero_at_start",
            "zero_on_path",
            "gradients",
            "forwards",
        )
        for name in (*counted, "followed", "rising", "judged", "backwards", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(trace, name))
        total.excess = max(total.excess, trace.excess)
        total.broke_within = {
            mark: total.broke_within.get(mark, 0) + trace.broke_within.get(mark, 0)
            for mark in {**total.broke_within, **trace.broke_within}
        }
        total.untouched_in = _added(total.untouched_in, trace.untouched_in)
    return list(merged.values())


def _named(traces: Sequence[Trace], chunk: int) -> Iterator[Trace]:
    """The traces of a chunk, with the chunk as one more group of images."""
    for trace in traces:
        counts = {f"chunk {chunk + 1}": (trace.untouched, trace.n - trace.broke)} if trace.untouched else {}
        yield replace(trace, untouched_in={**trace.untouched_in, **counts})


def _added(
    first: Mapping[str, tuple[int, int]], second: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """The sums of two counts for each group."""
    return {
        name: (a + b, c + d)
        for name in dict.fromkeys((*first, *second))
        for (a, c), (b, d) in [(first.get(name, (0, 0)), second.get(name, (0, 0)))]
    }
