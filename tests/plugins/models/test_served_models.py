"""Servers as models: what they are asked, and answers that are none."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from foreign_models import built, images, small_net

from stresslens.core.errors import ConfigError, DataError
from stresslens.core.gradient_free import why_no_gradient


class Server(BaseHTTPRequestHandler):
    """Answers with what `reply` makes of the images: a status, and the bytes."""

    reply: ClassVar[Callable[[np.ndarray], tuple[int, bytes]]]
    asked: ClassVar[list[int]]
    headed: ClassVar[list[str | None]]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        npy = self.headers["Content-Type"] == "application/x-npy"
        sent = np.load(io.BytesIO(content)) if npy else np.array(json.loads(content)["instances"], np.float32)
        self.asked.append(len(sent))
        self.headed.append(self.headers.get("Authorization"))
        status, body = type(self).reply(sent)
        try:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", body.decode())
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client has gone
            pass

    def log_message(self, *anything: Any) -> None:
        pass


@contextmanager
def serving(reply: Callable[[np.ndarray], tuple[int, bytes]]) -> Iterator[tuple[str, type[Server]]]:
    handler = type("Handler", (Server,), {"reply": staticmethod(reply), "asked": [], "headed": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/predict", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def scores_of(sent: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return small_net()(torch.from_numpy(sent)).numpy()


def in_json(sent: np.ndarray) -> tuple[int, bytes]:
    return 200, json.dumps({"predictions": scores_of(sent).tolist()}).encode()


def in_npy(sent: np.ndarray) -> tuple[int, bytes]:
    file = io.BytesIO()
    np.save(file, scores_of(sent))
    return 200, file.getvalue()


@pytest.mark.parametrize("send", ["json", "npy"])
@pytest.mark.parametrize(
    "reply", [in_json, in_npy, lambda sent: (200, json.dumps(scores_of(sent).tolist()).encode())]
)
def test_a_server(send: str, reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_TOKEN", "secret")
    with serving(reply) as (url, handler):
        model = built(
            {"http": {"url": url, "send": send, "batch": 3, "headers": {"Authorization": "$OWN_TOKEN"}}}
        )
        handler.asked.clear()
        x = images()
        assert torch.allclose(model(x), small_net()(x), atol=1e-5)
    assert handler.asked == [3, 3, 1]
    assert set(handler.headed) == {"secret"}
    assert why_no_gradient(model) == f"the server {url}"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, b"out of memory", r"it answers 500 .*: out of memory; asked 2 times for 2 images"),
        (404, b"", r"it answers 404 Not Found$"),
        (200, b"<html>hello</html>", r"cannot be read as scores .* begins with '<html>hello"),
        (200, b'{"error": "no"}', r"it has none of predictions.*, but error"),
        (200, b"[[1, 2, 3, 4]]", r"numbers of shape \(1, 4\) for 2 images"),
        (200, b'[["a", "b"], ["c", "d"]]', "cannot be read as scores"),
        (200, b"[[1, 2], [3]]", "cannot be read as scores"),
        (200, b"[[NaN, 1, 2, 3], [NaN, 1, 2, 3]]", None),
        (200, b"[[1, 2, 3], [1, 2, 3]]", "has 3 outputs, and the data have 4 classes"),
        (200, b"[[[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]]]", r"returned shape \(2, 1, 2, 2\) for 2 images"),
        (200, b"[[NaN, NaN, NaN, NaN], [NaN, NaN, NaN, NaN]]", "returns NaN or infinity"),
    ],
)
def test_a_server_that_does_not_answer_so(status: int, body: bytes, told: str | None) -> None:
    with serving(lambda sent: (status, body)) as (url, handler):
        value = {"http": {"url": url, "retries": 1}}
        if told is None:
            assert built(value)(images(2)).isnan().any(1).all()
            return
        with pytest.raises((ConfigError, DataError), match=told):
            built(value)
    assert len(handler.asked) == (2 if status == 500 else 1)


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header may hold a secret, which is for the given address alone."""
    monkeypatch.setenv("OWN_TOKEN", "secret")
    with (
        serving(in_json) as (other, elsewhere),
        serving(lambda sent: (302, other.encode())) as (url, _),
        pytest.raises(DataError, match="it answers 302"),
    ):
        built({"http": {"url": url, "retries": 0, "headers": {"Authorization": "$OWN_TOKEN"}}})
    assert elsewhere.asked == []


def test_a_server_that_is_slow_or_away() -> None:
    waiting = threading.Event()

    def slow(sent: np.ndarray) -> tuple[int, bytes]:
        waiting.wait(5)
        return in_json(sent)

    with serving(slow) as (url, _):
        with pytest.raises(DataError, match=r"no answer within 0.1 s \(timeout\); asked once"):
            built({"http": {"url": url, "timeout": 0.1, "retries": 0}})
        waiting.set()
    with pytest.raises(DataError, match="refused"):
        built({"http": {"url": url, "retries": 0}})
    with pytest.raises(ConfigError, match="expected an address that begins with http"):
        built({"http": {"url": "file:///etc/passwd"}})
    with pytest.raises(ConfigError, match="the environment has no variable OWN_MISSING"):
        built({"http": {"url": url, "headers": {"a": "$OWN_MISSING"}}})
