"""`stresslens serve`: what requests are answered, against `sl.predict`, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from servers import JSON, PNG, Server, serving

import stresslens as sl
from stresslens.plugins.datasets.digits import digits

TOKEN = "one-two-three-four"


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    split = digits().test
    assert split is not None
    return [np.uint8(split.images[k, 0].numpy() * 15.9375) for k in range(6)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sl.Run:
    out = tmp_path_factory.mktemp("served")
    settings = {"precision": "float32", "threads": 1, "memory_format": "contiguous"}
    return sl.train("simple_cnn", "digits", epochs=1, **settings, out=out, progress=False)


@pytest.fixture(scope="module")
def server(run: sl.Run) -> Iterator[Server]:
    limits = ("--max-images", "8", "--max-megabytes", "1", "--max-megapixels", "1")
    with serving(run.folder, *limits, STRESSLENS_TOKEN=TOKEN) as found:
        found.token = TOKEN
        yield found


def test_answers_are_those_of_predict(server: Server, run: sl.Run, images: list[np.ndarray]) -> None:
    expected = sl.predict(run, [Image.fromarray(each) for each in images])
    contents = [png(each) for each in images]
    one = [server.json("POST", "/predict?top=10", each, **PNG) for each in contents]
    encoded = json.dumps({"images": [base64.b64encode(each).decode() for each in contents]}).encode()
    status, together = server.json("POST", "/predict?top=10", encoded, **JSON)
    assert status == 200
    for k, (code, answer) in enumerate(one):
        assert code == 200
        assert answer["model"]["run"].endswith("/seed-0")
        (alone,) = answer["predictions"]
        for found in (alone, together["predictions"][k]):
            by_class = {each["class"]: each["probability"] for each in found["predictions"]}
            row = [by_class[name] for name in run.classes]
            assert row == pytest.approx(list(np.asarray(expected)[k]), abs=1e-6)
            assert found["predictions"][0]["probability"] == max(row)
            assert found["predictions"][0]["class"] in found["set"]
            assert 0 < found["ood_p_value"] <= 1
            assert found["out_of_distribution"] == (found["ood_p_value"] <= 0.01)


def test_a_form_with_files_keeps_names_and_order(server: Server, images: list[np.ndarray]) -> None:
    parts = [("α/../a.png", png(images[0])), ("b\r\n.png", b"no image"), ("c.png", png(images[1]))]
    body = b""
    for name, content in parts:
        safe = name.encode().replace(b"\r\n", b"%0D%0A")
        body += b'--x\r\nContent-Disposition: form-data; name="f"; filename="' + safe
        body += b'"\r\nContent-Type: image/png\r\n\r\n' + content + b"\r\n"
    status, answer = server.json(
        "POST", "/predict", body + b"--x--\r\n", **{"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert status == 200
    first, second, third = answer["predictions"]
    assert [first["file"], third["file"]] == ["α/../a.png", "c.png"]
    assert "not an image of a known format" in second["unreadable"]
    assert "predictions" in first
    assert "predictions" in third


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "told"),
    [
        ("/predict", b"", PNG, 400, "there is no image in the request; send the bytes"),
        ("/predict", b"abc", PNG, 422, None),
        ("/predict", b"abc", {"Content-Type": "text/html"}, 415, "text/html is not understood"),
        ("/predict", b"{", JSON, 400, "the body is not JSON"),
        ("/predict", b"[" * 200_000, JSON, 400, "the body is not JSON"),
        ("/predict", b'{"images": [1]}', JSON, 400, 'expected {"images"'),
        ("/predict", b'{"images": ["&"]}', JSON, 400, r"images[0] is not base64"),
        ("/predict", json.dumps({"images": ["YQ=="] * 9}).encode(), JSON, 413, "more than 8 images"),
        ("/predict", b"a" * (2**20 + 1), PNG, 413, "more than 1 MB"),
        ("/predict?top=0", b"a", PNG, 400, "top is 0; expected 1 to 100"),
        ("/predict?top=many", b"a", PNG, 400, "top is 'many'; expected a number"),
        ("/predict?coverage=95", b"a", PNG, 400, "expected a share between 0 and 1, such as 0.95"),
        ("/predict?coverage=nan", b"a", PNG, 400, "coverage is nan"),
        ("/predict?tops=3", b"a", PNG, 400, "'tops': did you mean 'top'"),
        ("/predict?run=../../etc", b"a", PNG, 404, "run '../../etc'"),
        ("/predict", b"x", {"Content-Type": "multipart/form-data"}, 400, "the form cannot be read"),
        ("/nothing", b"x", PNG, 404, "/openapi.json says what there is"),
        ("/health", b"x", PNG, 405, "Method Not Allowed"),
    ],
)
def test_what_cannot_be_answered(
    server: Server, path: str, body: bytes, headers: dict[str, str], status: int, told: str | None
) -> None:
    code, answer = server.json("POST", path, body, **headers)
    assert code == status
    if told is None:
        assert "unreadable" in answer["predictions"][0]
    else:
        assert answer["status"] == status
        assert told in answer["error"]


def test_an_image_of_too_many_pixels_is_not_decoded(server: Server) -> None:
    large = png(np.zeros((1001, 1000), np.uint8))
    status, answer = server.json("POST", "/predict", large, **PNG)
    assert status == 422
    told = answer["predictions"][0]["unreadable"]
    assert told == "1000×1001 pixels, more than 1,000,000"


def test_pages_of_other_servers_may_not_ask(server: Server) -> None:
    assert server.ask("GET", "/health", None, {"Host": "evil.example"})[0] == 421
    assert server.ask("GET", "/health", None, {"Origin": "https://evil.example"})[0] == 403
    own = f"http://127.0.0.1:{server.port}"
    assert server.ask("GET", "/health", None, {"Origin": own})[0] == 200


def test_the_description_fits_the_answers(server: Server, images: list[np.ndarray]) -> None:
    status, described = server.json("GET", "/openapi.json")
    assert status == 200
    assert described["openapi"].startswith("3.1")
    schemas = described["components"]["schemas"]
    for body, name in ((png(images[0]), "Answer"), (b"abc", "Answer"), (b"", "Error")):
        answer = server.json("POST", "/predict?wrong_at_most=0.2", body, **PNG)[1]
        assert all("set" in each for each in answer.get("predictions", []) if "predictions" in each)
        whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
        jsonschema.validate(answer, whole)
        assert set(answer) == set(schemas[name]["properties"])
        for each in answer.get("predictions", []):
            assert set(each) <= set(schemas["Prediction"]["properties"])
    statuses = set(described["paths"]["/predict"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "404", "413", "415", "422", "500", "503", "504"}


def test_health_and_metrics(server: Server) -> None:
    status, health = server.json("GET", "/health")
    assert (status, health["status"], health["workers"]) == (200, "ok", 1)
    (described,) = health["runs"]
    assert described["classes"] == [str(k) for k in range(10)]
    assert (described["ood_rate"], described["no_sets"]) == (0.01, None)
    text = server.ask("GET", "/metrics")[1].decode()
    assert 'stresslens_requests_total{path="/health",status="200"}' in text
    assert "stresslens_workers 1.0" in text
    assert "stresslens_waiting_images 0.0" in text


def test_with_a_token_nothing_but_health_is_open(server: Server, images: list[np.ndarray]) -> None:
    content, stranger = png(images[0]), replace(server, token="")
    assert stranger.ask("GET", "/health")[0] == 200
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        status, answer = stranger.json("POST", "/predict", content, **PNG, **given)
        assert status == 401
        assert answer["error"] == "give the token: Authorization: Bearer TOKEN"
    assert stranger.json("POST", "/predict", content, **PNG, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert stranger.ask("GET", "/metrics")[0] == 401


@pytest.mark.slow  # a server of its own
def test_without_a_token_all_is_open(run: sl.Run, images: list[np.ndarray]) -> None:
    with serving(run.folder) as server:
        assert server.ask("POST", "/predict", png(images[0]), PNG)[0] == 200
        assert server.ask("GET", "/metrics")[0] == 200
        described = server.json("GET", "/openapi.json")[1]["paths"]["/predict"]["post"]["responses"]
        assert set(described) == {"200", "400", "404", "413", "415", "422", "500", "503", "504"}


def test_requests_that_come_together_are_computed_together(server: Server, images: list[np.ndarray]) -> None:
    contents = [png(each) for each in images]
    alone = [server.ask("POST", "/predict", each, PNG)[1] for each in contents]
    before = _batches(server)
    answers: dict[int, bytes] = {}

    def ask(number: int) -> None:
        answers[number] = server.ask("POST", "/predict", contents[number % 6], PNG)[1]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(48)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(answers) == 48
    for number, answer in answers.items():
        found, expected = (json.loads(each)["predictions"][0] for each in (answer, alone[number % 6]))
        assert found["set"] == expected["set"]
        assert found["predictions"][0]["class"] == expected["predictions"][0]["class"]
        probability = found["predictions"][0]["probability"]
        assert probability == pytest.approx(expected["predictions"][0]["probability"], abs=1e-6)
    batches, computed = (after - earlier for after, earlier in zip(_batches(server), before))
    assert computed == 48
    assert batches < 48


def _batches(server: Server) -> tuple[float, float]:
    lines = server.ask("GET", "/metrics")[1].decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return float(values["stresslens_batch_images_count"]), float(values["stresslens_batch_images_sum"])


@pytest.mark.slow
def test_no_request_is_lost_when_a_worker_is_killed(server: Server, images: list[np.ndarray]) -> None:
    content, statuses, stop = png(images[0]), list[int](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            statuses.append(server.ask("POST", "/predict", content, PNG)[0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    (worker,) = server.workers()
    time.sleep(0.3)
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while server.workers() in ([worker], []) or not server.json("GET", "/health")[1]["workers"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = len(statuses)
    while len(statuses) < before + 8:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    for each in threads:
        each.join()
    assert set(statuses) == {200}
    assert server.workers() != [worker]


def test_malformed_requests_leave_the_server_alive(server: Server, images: list[np.ndarray]) -> None:
    good, draw = png(images[0]), random.Random(0)
    for _ in range(300):
        content = bytearray(good)
        for _ in range(draw.randint(1, 30)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        cut = bytes(content[: draw.randint(1, len(content))])
        status, answer = server.json("POST", "/predict", cut, **PNG)
        assert status in (200, 422)
        assert len(answer["predictions"]) == 1
    for line in (b"\0\1\2", b"GET / HTTP/9\r\n\r\n", b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
            raw.sendall(line)
            raw.shutdown(socket.SHUT_WR)
            raw.recv(1000)
    assert server.json("POST", "/predict", good, **PNG)[0] == 200


@pytest.mark.slow
def test_open_requests_are_answered_when_the_server_is_stopped(run: sl.Run, images: list[np.ndarray]) -> None:
    with serving(run.folder) as server:
        body = json.dumps({"images": [base64.b64encode(png(images[0])).decode()] * 60}).encode()
        answers: list[tuple[int, bytes]] = []
        threads = [
            threading.Thread(target=lambda: answers.append(server.ask("POST", "/predict", body, JSON)))
            for _ in range(3)
        ]
        for each in threads:
            each.start()
        while not answers:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        for each in threads:
            each.join()
        assert [status for status, _ in answers] == [200] * 3
        assert server.process.wait(30) == 0


def test_what_cannot_be_served_is_said_before(tmp_path: Path, type_: object) -> None:
    code, _, told = type_("serve", "nothing")  # type: ignore[operator]
    assert code == 2
    assert "nothing" in told
    assert "Traceback" not in told
