"""How long a person waits at the page of `stresslens serve`: for the answer, the map of each explainer, the
nearest training images, and the smallest attack.

    python benchmarks/page.py             # simple_cnn, trained on 20,000 images of MNIST

Each test image is asked for as the page does, over HTTP, once before it is timed. Answers come a line
at a time: times are those from the request to the line.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from serving import started

import stresslens as sl

IMAGES = 20
ATTACKS = {"linf": (0.1, 0.3), "l2": (1.0, 3.0)}
"""The norms and radii of the attacks."""


def lines(port: int, path: str, **options: Any) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each line of an answer, with the milliseconds since it was asked for."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    begun = time.perf_counter()
    connection.request("POST", f"{path}?{urlencode(options)}")
    answer = connection.getresponse()
    while line := answer.readline():
        yield 1e3 * (time.perf_counter() - begun), json.loads(line)
    connection.close()


def looked(port: int, explainer: str, times: dict[str, list[float]]) -> None:
    for image in range(IMAGES):
        for timed in (False, True):
            for at, part in lines(port, "/page/look", image=image, explainer=explainer):
                kind = {"look": "answer", "map": f"answer and {explainer}"}.get(part["kind"], "")
                if timed and kind:
                    times.setdefault(kind, []).append(at)
            if timed:
                times.setdefault(f"answer, {explainer} and nearest images", []).append(at)


def attacked(port: int, norm: str, radius: float, times: dict[str, list[float]]) -> None:
    for image in range(IMAGES):
        for timed in (False, True):
            for number, (at, _) in enumerate(
                lines(port, "/page/attack", image=image, norm=norm, radius=radius)
            ):
                if timed and not number:
                    times.setdefault(f"attack, {norm} {radius:g}: first line", []).append(at)
            if timed:
                times.setdefault(f"attack, {norm} {radius:g}: last line", []).append(at)


def main() -> None:
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run = sl.train("simple_cnn", {"mnist": {"subset": 20000}}, epochs=2, out=out, progress=False)
        with started("stresslens", run.folder, out, "L", 28, out) as (_, port):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            connection.request("GET", "/page/runs")
            (told,) = json.load(connection.getresponse())["runs"]
            for explainer in told["explainers"]:
                looked(port, explainer, times)
            for norm, radii in ATTACKS.items():
                for radius in radii:
                    attacked(port, norm, radius, times)
    print("| what | n | median, ms | 95 % below, ms |")
    print("|---|--:|--:|--:|")
    for what, each in times.items():
        print(f"| {what} | {len(each)} | {np.median(each):.0f} | {np.quantile(each, 0.95):.0f} |")


if __name__ == "__main__":
    main()
