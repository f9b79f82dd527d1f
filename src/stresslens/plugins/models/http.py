from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np
from torch import nn

from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.foreign_model import ForeignModel, Layout, Output, tried
from stresslens.core.types import Count, Natural, Positive, Shape
from stresslens.plugins.models._foreign import Moments, Side, preparation_of

LARGEST = 256 * 2**20
"""An answer of more bytes is refused."""
ANSWERS = ("predictions", "outputs", "scores", "logits", "probabilities", "labels")
"""The keys under which an answer holds the scores; the first that is there."""


def http(
    shape: Shape,
    classes: int,
    *,
    url: str,
    headers: dict[str, str] | None = None,
    timeout: Positive = 30.0,
    retries: Natural = 2,
    batch: Count = 32,
    send: Literal["json", "npy"] = "json",
    output: Output = "logits",
    columns: tuple[Natural, ...] | None = None,
    layout: Layout = "nchw",
    bgr: bool = False,
    mean: Moments | None = None,
    std: Moments | None = None,
    scale: Positive = 1.0,
    size: Side | None = None,
) -> nn.Module:
    """A server that answers a POST with scores, as TensorFlow Serving and KServe do. It has no gradient.

    Each request at `url` has up to `batch` images: as `{"instances": [...]}` in JSON, or with `send: npy`
    as a file of numpy. The answer is `{"predictions": [...]}` (or outputs, scores, logits, probabilities,
    labels), a plain list, or a file of numpy: a row of numbers for each image. Images in [0, 1] are resized
    to `size` and become (x - `mean`) / `std` · `scale`, in the order `layout` (with `bgr` the blue
    channel first). `output` says whether it returns logits, probabilities or labels. `columns` are its
    outputs that are the classes of the data, in their order. A request that fails or takes longer than
    `timeout` seconds is repeated up to `retries` times. Headers are written to the run's folder; a value
    such as `$TOKEN` is read from the environment. Raises ConfigError or DataError for a server that does
    not answer so.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise ConfigError(f"url {url!r}: expected an address that begins with http:// or https://")

    def answer(images: np.ndarray) -> Any:
        return _asked(url, images, _from_environment(headers or {}), timeout, retries, send)

    model = ForeignModel(
        lambda images: np.concatenate(
            [np.asarray(answer(images[start : start + batch])) for start in range(0, len(images), batch)]
        ),
        f"the server {url}",
        classes=classes,
        layout=layout,
        bgr=bgr,
        output=output,
        columns=columns,
        digest=url,
    )
    return tried(model, shape, classes)


def trainable() -> bool:
    return False


def needs_trust() -> str:
    return "the run sends its images to a server"


own_preprocessing = preparation_of


def _from_environment(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, with the values of variables of the environment in place of `$NAME`."""
    import os

    found = {}
    for name, value in headers.items():
        if value.startswith("$"):
            if value[1:] not in os.environ:
                raise ConfigError(f"headers: {name}: the environment has no variable {value[1:]}")
            value = os.environ[value[1:]]
        found[name] = value
    return found


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: the images and the headers, which may hold a secret, go to the given address
    alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


ASK = build_opener(_NoRedirect)


def _asked(
    url: str, images: np.ndarray, headers: Mapping[str, str], timeout: float, retries: int, send: str
) -> Any:
    """The server's answer for images, as numbers. Raises DataError where it gives none."""
    body, kind = _body(images, send)
    request = Request(url, data=body, headers={"Content-Type": kind, **headers}, method="POST")
    for attempt in range(retries + 1):
        try:
            with ASK.open(request, timeout=timeout) as reply:
                content = reply.read(LARGEST + 1)
            break
        except HTTPError as error:
            said = error.read(300).decode(errors="replace").strip()
            why = f"it answers {error.code} {error.reason}" + (f": {said}" if said else "")
            if error.code < 500 and error.code not in (408, 429):
                raise DataError(f"{url}: {why}") from None
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            slow = isinstance(reason, TimeoutError)
            why = f"no answer within {timeout:g} s (timeout)" if slow else first_line(error)[:200]
        if attempt == retries:
            tries = "once" if retries == 0 else f"{retries + 1} times"
            raise DataError(f"{url}: {why}; asked {tries} for {len(images)} images")
        time.sleep(min(0.1 * 2**attempt, 5.0))
    if len(content) > LARGEST:
        raise DataError(
            f"{url}: the answer has more than {LARGEST // 2**20} MiB; ask for fewer images (batch)"
        )
    return _scores(content, url, len(images))


def _body(images: np.ndarray, send: str) -> tuple[bytes, str]:
    if send == "json":
        return json.dumps({"instances": images.tolist()}).encode(), "application/json"
    file = io.BytesIO()
    np.save(file, images, allow_pickle=False)
    return file.getvalue(), "application/x-npy"


def _scores(content: bytes, url: str, n: int) -> np.ndarray:
    """The numbers (n, …) in an answer."""
    try:
        if content.startswith(b"\x93NUMPY"):
            found: Any = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            found = json.loads(content)
            if isinstance(found, Mapping):
                key = next((key for key in ANSWERS if key in found), None)
                if key is None:
                    raise ValueError(f"it has none of {', '.join(ANSWERS)}, but {', '.join(map(str, found))}")
                found = found[key]
        scores = np.asarray(found, np.float32)
    except (ValueError, TypeError, RecursionError) as error:
        start, why = content[:60].decode(errors="replace"), first_line(error)[:150]
        raise DataError(
            f"{url}: the answer cannot be read as scores ({why}); it begins with {start!r}"
        ) from error
    if scores.ndim == 0 or len(scores) != n:
        shape = scores.shape
        raise DataError(
            f"{url}: it answered with numbers of shape {shape} for {n} images; expected a row each"
        )
    return scores
