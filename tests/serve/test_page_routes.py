"""The page of `stresslens serve`: its files, what its script is answered, and what is refused."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from pictures_of_page import digit, lines, trained
from PIL import Image
from servers import Server, serving

import stresslens as sl
from stresslens.evaluation.classify_files import Classifier
from stresslens.evaluation.guarantees import wanted
from stresslens.evaluation.predictor import open_predictor
from stresslens.serve.headers import page_headers

TOKEN = "one-two-three-four"
DRAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[sl.Run, sl.Run]:
    return trained(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def server(runs: tuple[sl.Run, sl.Run]) -> Iterator[Server]:
    with serving(*(run.folder for run in runs), "--max-megabytes", "1") as found:
        yield found


@pytest.fixture(scope="module")
def names(server: Server) -> list[str]:
    status, found = server.json("GET", "/page/runs")
    assert status == 200
    return [run["name"] for run in found["runs"]]


def test_its_files_are_small_and_name_no_other_host() -> None:
    folder = files("stresslens.serve") / "page"
    assert len((folder / "page.js").read_bytes()) < 30_000
    for name in ("index.html", "page.css", "page.js"):
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|//\w+\.\w+/|url\(|@import|\sstyle=|\son\w+=\"|innerHTML", text), name


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page/page.css", "text/css"), ("/page/page.js", "text/javascript")],
)
def test_its_files_forbid_requests_elsewhere(server: Server, path: str, kind: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.read()
    connection.close()
    headers = dict(answer.getheaders())
    assert headers["content-type"].startswith(kind)
    for name, value in page_headers().items():
        assert headers[name.lower()] == value
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_what_it_says_is_what_predict_says(
    server: Server, names: list[str], runs: tuple[sl.Run, sl.Run], tmp_path: Path
) -> None:
    picture, file = digit(), tmp_path / "three.png"
    file.write_bytes(picture)
    status, parts = lines(server, "/page/look", picture, **DRAW)
    assert status == 200
    looks = {part["run"]: part for part in parts if part["kind"] == "look"}
    assert list(looks) == names
    for name, run in zip(names, runs):
        classifier = Classifier(open_predictor(run.folder), wanted(coverage=0.95))
        (expected,) = classifier.classify([file], top=10)
        assert dict(expected.classes) == dict(zip(run.classes, sl.predict(run, [file])[0].tolist()))
        found = looks[name]
        assert found["p"] == expected.ood_p_value
        assert found["unlike"] == expected.out_of_distribution
        assert dict(found["classes"]) == dict(expected.classes)
        assert [each["coverage"] for each in found["sets"]] == [0.9, 0.95, 0.99]
        assert expected.guaranteed is not None
        assert tuple(found["sets"][1]["classes"]) == expected.guaranteed.classes
        assert "validation images" in found["sets"][1]["said"]
        assert found["seen"]["said"] == "8×8 pixels, grey."
    assert [part["kind"] for part in parts[:4]] == ["look", "look", "map", "map"]


def test_a_map_says_which_command_checks_it_and_then_what_the_check_says(
    server: Server, names: list[str], runs: tuple[sl.Run, sl.Run]
) -> None:
    _, parts = lines(server, f"/page/look?run={names[0]}&explainer=saliency", digit(), **DRAW)
    (shown,) = (part for part in parts if part["kind"] == "map")
    assert shown["explainer"] == "saliency"
    assert f"stresslens explain {runs[0].folder} --explainer saliency --check" in shown["trust"]
    sl.explain(runs[0], "saliency", check=True, n_images=6, progress=False)
    _, parts = lines(server, f"/page/look?run={names[0]}&explainer=saliency", digit(), **DRAW)
    (shown,) = (part for part in parts if part["kind"] == "map")
    assert "6 test images" in shown["trust"]
    assert "--check" not in shown["trust"]


def test_the_nearest_training_images(server: Server, names: list[str]) -> None:
    _, parts = lines(server, f"/page/look?run={names[0]}", digit(), **DRAW)
    nearest = parts[-1]
    assert nearest["kind"] == "nearest"
    assert len(nearest["images"]) == 6
    distances = [each["distance"] for each in nearest["images"]]
    assert distances == sorted(distances)
    answer = next(part for part in parts if part["kind"] == "look")["classes"][0][0]
    same = [each["label"] for each in nearest["images"]].count(answer)
    assert nearest["said"].startswith(f"{same} of the 6 nearest training images ")


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.5), ("l2", 3.0)])
def test_an_attack_streams_until_it_says_what_it_found(
    server: Server, names: list[str], norm: str, radius: float
) -> None:
    status, parts = lines(server, f"/page/attack?norm={norm}&radius={radius}", digit(), **DRAW)
    assert status == 200
    for name in names:
        own = [part for part in parts if part["run"] == name]
        assert [part["done"] for part in own] == [False] * (len(own) - 1) + [True]
        last = own[-1]
        assert last["found"]
        assert 0 < last["size"] <= radius * (1 + 1e-5) + 1e-6
        assert last["before"][0][0] != last["after"][0][0]
        sizes = [part["size"] for part in own if part["found"]]
        assert sizes == sorted(sizes, reverse=True)
        assert "hop skip jump" in last["said"] if name == names[1] else "pgd" in last["said"]


def test_an_attack_that_finds_nothing_says_that_it_is_no_proof(server: Server, names: list[str]) -> None:
    _, parts = lines(server, f"/page/attack?run={names[0]}&norm=l2&radius=0.001", digit(), **DRAW)
    assert not parts[-1]["found"]
    assert "no proof" in parts[-1]["said"]
    assert "pgd (steps 20, momentum 0.5) and apgd" in parts[-1]["said"]


def test_a_class_can_be_asked_for(server: Server, names: list[str]) -> None:
    _, parts = lines(server, f"/page/attack?run={names[0]}&norm=linf&radius=0.9&target=8", digit(), **DRAW)
    assert parts[-1]["after"][0][0] == "8"


def test_corruptions_come_before_everything_else(server: Server, names: list[str]) -> None:
    plain, spoilt, again = (
        lines(server, f"/page/look?run={names[0]}{more}", digit(), **DRAW)[1][0]
        for more in ("", "&corruption=noise:5", "&corruption=noise:5")
    )
    assert plain["seen"] != spoilt["seen"] == again["seen"]
    assert plain["classes"] != spoilt["classes"] == again["classes"]


def test_its_own_test_images(server: Server, names: list[str]) -> None:
    def page(more: str) -> dict[str, object]:
        status, found = server.json("GET", f"/page/images?run={names[0]}&{more}")
        assert status == 200
        return dict(found)

    totals = {which: page(f"which={which}")["total"] for which in ("all", "right", "wrong", "unsure")}
    assert totals["all"] == totals["unsure"] == totals["right"] + totals["wrong"]  # type: ignore[operator]
    assert totals["wrong"]
    first = page("which=wrong&class=8")["images"][0]  # type: ignore[index]
    assert first["truth"] == "8" != first["answer"]
    _, parts = lines(server, f"/page/look?run={names[0]}&of={names[0]}&image={first['position']}")
    assert parts[0]["truth"] == "8"
    assert parts[0]["classes"][0] == [first["answer"], pytest.approx(first["sure"], abs=1e-6)]
    unsure = [each["sure"] for each in page("which=unsure")["images"]]  # type: ignore[attr-defined]
    assert unsure == sorted(unsure)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/page/look", b"no picture at all", 422, "The picture cannot be read: not an image"),
        ("/page/look", b"", 400, "there is no picture"),
        ("/page/look", b"x" * 2**20 + b"x", 413, "more than 1 MB"),
        ("/page/look?run=../../etc", b"x", 404, "run '../../etc'"),
        ("/page/look?corruption=fogg:2", b"x", 400, "fog"),
        ("/page/look?corruption=fog:6", b"x", 400, "expected 1 to 5"),
        ("/page/look?image=999999", b"", 422, "There is no test image 999999"),
        ("/page/look?image=-1", b"", 400, "expected a whole number"),
        ("/page/look?caption=a+cat&caption=a+dog", None, 422, "no text side"),
        ("/page/attack?radius=2", b"x", 400, "at most 1"),
        ("/page/attack?radius=nan", b"x", 400, "finite"),
        ("/page/attack?norm=l7", b"x", 400, "norm 'l7'"),
    ],
)
def test_what_is_refused(server: Server, path: str, body: bytes | None, status: int, said: str) -> None:
    found, content = server.json("POST", path, digit() if body is None else body)
    assert found == status
    assert said in content["error"]


def test_a_client_that_leaves_holds_nobody_up(server: Server, names: list[str]) -> None:
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/page/attack?norm=l2&radius=3", digit(), DRAW)
        connection.getresponse().readline()
        connection.close()
    status, parts = lines(server, f"/page/look?run={names[0]}", digit(), **DRAW)
    assert (status, parts[0]["kind"]) == (200, "look")


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(server: Server, names: list[str]) -> None:
    os.kill(max(server.workers()), signal.SIGKILL)
    status, content = server.json("POST", f"/page/look?run={names[0]}", digit())
    assert (status, "has ended" in content["error"]) == (500, True)
    status, parts = lines(server, f"/page/look?run={names[0]}", digit(), **DRAW)
    assert (status, parts[0]["kind"]) == (200, "look")


@pytest.mark.slow  # a server of its own
def test_its_files_are_open_and_its_answers_need_the_token(runs: tuple[sl.Run, sl.Run]) -> None:
    with serving(runs[0].folder, STRESSLENS_TOKEN=TOKEN) as server:
        for path in ("/", "/page/page.css", "/page/page.js"):
            assert server.ask("GET", path)[0] == 200
        for method, path in (("GET", "/page/runs"), ("GET", "/page/images"), ("POST", "/page/look")):
            assert server.ask(method, path, digit() if method == "POST" else None)[0] == 401
        assert len(server.workers()) == 1  # the process of the page was not started
        assert server.json("GET", "/page/runs", Authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.slow  # a server of its own
def test_an_export_and_a_run_without_its_data_leave_their_images_out(
    runs: tuple[sl.Run, sl.Run], tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    rows = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    for k, pixels in enumerate(rows):
        place = folder / f"class{k % 2}" / f"{k}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    moved = sl.train("linear", str(folder), epochs=1, out=tmp_path / "runs", progress=False)
    sl.export(runs[0], out=tmp_path / "net.onnx")
    folder.rename(tmp_path / "elsewhere")
    with serving(tmp_path / "net.onnx", moved.folder) as server:
        status, parts = lines(server, "/page/look", digit(), **DRAW)
        assert status == 200
        said = [part["said"] for part in parts if part["kind"] == "nearest"]
        assert said[0] == "An exported model comes without its images."
        assert said[1].startswith("The images of this run cannot be shown: ")
        net = server.json("GET", "/page/runs")[1]["runs"][0]["name"]
        status, content = server.json("GET", f"/page/images?run={net}")
        assert (status, content["error"]) == (422, said[0])
        _, parts = lines(server, f"/page/attack?run={net}&norm=linf&radius=0.5", digit(), **DRAW)
        assert parts[-1]["found"]
        assert "hop skip jump" in parts[-1]["said"]


@pytest.mark.slow
def test_it_can_be_left_out(runs: tuple[sl.Run, sl.Run]) -> None:
    with serving(runs[0].folder, "--no-page") as server:
        assert server.ask("GET", "/")[0] == 404
        assert json.loads(server.ask("GET", "/openapi.json")[1])["info"]["title"] == "stresslens serve"
