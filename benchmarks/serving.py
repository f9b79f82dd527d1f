"""Requests a second and latency of `stresslens serve`, beside a plain FastAPI application and LitServe with
the same model.

    python benchmarks/serving.py                    # simple_cnn on MNIST, ResNet-18 at 224 × 224
    python benchmarks/serving.py mnist --seconds 5
    python benchmarks/serving.py soak --seconds 600 # memory of the server under load
    python benchmarks/serving.py malformed          # 10,000 requests that are broken in some way

Each server runs by itself, one after the other, in turns (`--rounds`), and answers the same image files:
PNG of 28 × 28, or JPEG of 320 × 240. 1, 8 and 64 clients send a request as soon as they have the answer to
the last one, over open connections, from this process, which shares the machine's processors with the server.
The peers decode with Pillow and answer with the most probable class and its probability; stresslens also
calibrates, makes a set of classes and looks for images out of distribution. FastAPI answers each request in
a thread, with threads of torch; LitServe makes batches of up to 64 within 5 ms, and gets the file in JSON, in
base 64. A peer that is not installed (pip install fastapi litserve) is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.util
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import stresslens as sl

CLIENTS = (1, 8, 64)
WARM = 1.0
"""Seconds of each measurement that are not counted."""

PEER = """\
import io, sys
import numpy as np, torch
from PIL import Image

net = torch.jit.load(sys.argv[1]).eval()
mode, side, port = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def pixels(content):
    image = Image.open(io.BytesIO(content)).convert(mode).resize((side, side))
    x = np.asarray(image, np.float32) / 255
    return torch.from_numpy(x[None] if mode == "L" else x.transpose(2, 0, 1).copy())

def told(row):
    return {"class": int(row.argmax()), "probability": float(row.max())}
"""

FASTAPI = (
    PEER
    + """
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

app = FastAPI()

def classify(content):
    with torch.inference_mode():
        return told(net(pixels(content)[None]).softmax(1)[0])

@app.post("/predict")
async def predict(request: Request):
    return await run_in_threadpool(classify, await request.body())

print("ready", flush=True)
uvicorn.run(app, port=port, log_level="error")
"""
)

LITSERVE = (
    PEER
    + """
import base64
import litserve

class Classify(litserve.LitAPI):
    def setup(self, device):
        self.net = net

    def decode_request(self, request):
        return pixels(base64.b64decode(request["image"]))

    def batch(self, inputs):
        return torch.stack(inputs)

    def predict(self, x):
        with torch.inference_mode():
            return self.net(x).softmax(1)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, row):
        return told(row)

if __name__ == "__main__":
    api = Classify(max_batch_size=64, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="error")
"""
)

PEERS = {"fastapi": FASTAPI, "litserve": LITSERVE}


class Load(NamedTuple):
    """What a number of clients saw."""

    rate: float
    """Answers a second."""
    p50: float
    p99: float
    """Milliseconds."""
    failed: int


def model_of(name: str, out: Path) -> tuple[Path, Path, str, int]:
    """A trained run, its network as TorchScript, and the mode and side of its images."""
    if name == "mnist":
        data, model, shape, mode = {"mnist": {"subset": 2000}}, "simple_cnn", (1, 28, 28), "L"
    else:
        folder = _photographs(out / "photographs")
        data, model = {"folder": {"path": str(folder), "size": 224}}, {"torchvision": {"name": "resnet18"}}
        shape, mode = (3, 224, 224), "RGB"
    run = sl.train(model, data, epochs=1, out=out, progress=False)
    traced = torch.jit.trace(run.model().eval(), torch.rand(2, *shape))
    file = out / f"{name}.pt"
    traced.save(str(file))
    return run.folder, file, mode, shape[-1]


def _photographs(folder: Path) -> Path:
    """Noise as JPEG files in two class folders; what a net learns does not matter here."""
    draw = np.random.default_rng(0)
    for k in range(60):
        place = folder / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_smooth(draw)).save(place / f"{k}.jpg", quality=85)
    return folder


def _smooth(draw: np.random.Generator) -> np.ndarray:
    small = Image.fromarray(draw.integers(0, 256, (15, 20, 3), np.uint8))
    return np.asarray(small.resize((320, 240), Image.Resampling.BICUBIC))


def picture(mode: str) -> tuple[bytes, str]:
    content, draw = io.BytesIO(), np.random.default_rng(1)
    if mode == "L":
        Image.fromarray(draw.integers(0, 256, (28, 28), np.uint8)).save(content, "png")
        return content.getvalue(), "image/png"
    Image.fromarray(_smooth(draw)).save(content, "jpeg", quality=85)
    return content.getvalue(), "image/jpeg"


@contextmanager
def started(who: str, run: Path, file: Path, mode: str, side: int, out: Path) -> Iterator[tuple[int, int]]:
    """A server's process and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if who == "stresslens":
        words = [sys.executable, "-m", "stresslens", "serve", str(run), "--port", str(port)]
    else:
        script = out / f"{who}_server.py"
        script.write_text(PEERS[who])
        words = [sys.executable, str(script), str(file), mode, str(side), str(port)]
    with (out / f"{who}.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        request = asked(who, mode)
        for _ in range(300):
            with suppress(OSError, ValueError, asyncio.IncompleteReadError):
                if asyncio.run(_load(port, request, 1, 0.05)).rate > 0:
                    break
            time.sleep(0.2)
        yield process.pid, port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def asked(who: str, mode: str) -> bytes:
    """The request for one picture, in the form that a server takes."""
    content, kind = picture(mode)
    if who == "litserve":
        content, kind = json.dumps({"image": base64.b64encode(content).decode()}).encode(), "application/json"
    return _request(content, kind, "keep-alive")


async def _load(port: int, request: bytes, clients: int, seconds: float) -> Load:
    warm = min(WARM, seconds / 2)
    begun = time.perf_counter()
    times: list[float] = []
    failed = 0

    async def client() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (sent := time.perf_counter()) < begun + warm + seconds:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            if length is None:
                raise ValueError(head)
            await reader.readexactly(int(length[1]))
            if sent >= begun + warm:
                times.append(time.perf_counter() - sent)
                failed += b" 200 " not in head.partition(b"\r\n")[0]
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    taken = time.perf_counter() - begun - warm
    if not times:
        return Load(0, float("nan"), float("nan"), failed)
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return Load(len(times) / taken, 1e3 * p50, 1e3 * p99, failed)


def compare(name: str, seconds: float, rounds: int) -> None:
    installed = [who for who in PEERS if importlib.util.find_spec(who) is not None]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run, file, mode, side = model_of(name, out)
        print(f"\n{name}: {len(picture(mode)[0]):,} bytes a picture, {seconds:g} s by {rounds} rounds")
        seen: dict[tuple[str, int], list[Load]] = {}
        for _ in range(rounds):
            for who in ("stresslens", *installed):
                with started(who, run, file, mode, side, out) as (_, port):
                    for clients in CLIENTS:
                        found = asyncio.run(_load(port, asked(who, mode), clients, seconds))
                        seen.setdefault((who, clients), []).append(found)
        print("| clients | server | requests a second | p50, ms | p99, ms | failed | ours / theirs |")
        print("|--:|---|--:|--:|--:|--:|--:|")
        for clients in CLIENTS:
            ours = [each.rate for each in seen["stresslens", clients]]
            for who in ("stresslens", *installed):
                loads = seen[who, clients]
                rate, p50, p99 = (statistics.median(column) for column in list(zip(*loads))[:3])
                ratios = [a / each.rate if each.rate else float("inf") for a, each in zip(ours, loads)]
                against = "" if who == "stresslens" else f"{statistics.median(ratios):.2f}"
                failed = sum(each.failed for each in loads)
                print(f"| {clients} | {who} | {rate:,.0f} | {p50:.1f} | {p99:.1f} | {failed} | {against} |")


def soak(seconds: float) -> None:
    """Memory of the server and its worker while 8 clients ask."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run, file, mode, side = model_of("mnist", out)
        with started("stresslens", run, file, mode, side, out) as (pid, port):
            for part in range(10):
                load = asyncio.run(_load(port, asked("stresslens", mode), 8, seconds / 10))
                memory = ", ".join(f"{each / 2**20:.1f}" for each in _memory(pid))
                at = (part + 1) * seconds / 10
                print(
                    f"{at:6.0f} s: {load.rate:,.0f} a second, {load.failed} failed, {memory} MB", flush=True
                )


def malformed(number: int = 10_000) -> None:
    """How broken requests are answered, beside good ones, each of which must be answered with 200."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run, file, mode, side = model_of("mnist", out)
        content, kind = picture(mode)
        good = _request(content, kind)
        with started("stresslens", run, file, mode, side, out) as (pid, port):
            before = _memory(pid)
            answers = asyncio.run(_broken(port, number, content, good))
            status = asyncio.run(_status(port, good))
            after = _memory(pid)
        log = (out / "stresslens.log").read_text()
    for what, counts in sorted(answers.items()):
        told = ", ".join(f"{status or 'closed'}: {n:,}" for status, n in sorted(counts.items()))
        print(f"{what:20} {told}")
    print(f"a good request afterwards: {status}; tracebacks in the log: {log.count('Traceback')}")
    print("MB of server and worker:", *(f"{a / 2**20:.0f} to {b / 2**20:.0f}" for a, b in zip(before, after)))


def _request(content: bytes, kind: str, connection: str = "close") -> bytes:
    head = (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nConnection: {connection}\r\n"
    )
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def _status(port: int, request: bytes, *, ends: bool = False) -> int:
    """The status of an answer; 0 where the connection is closed without one. A request that `ends` is
    followed by nothing, whatever length it has announced."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        if ends:
            writer.write_eof()
        line = await asyncio.wait_for(reader.readline(), 60)
    except OSError:
        return 0
    finally:
        writer.close()
    found = re.match(rb"HTTP/1\.1 (\d+)", line)
    return int(found[1]) if found else 0


async def _broken(port: int, number: int, content: bytes, good: bytes) -> dict[str, Counter[int]]:
    answers: dict[str, Counter[int]] = {}
    turn = asyncio.Semaphore(32)

    async def ask(seed: int) -> None:
        what, request = _mistake(np.random.default_rng(seed), content, good)
        async with turn:
            answers.setdefault(what, Counter())[await _status(port, request, ends="cut-off" in what)] += 1

    await asyncio.gather(*map(ask, range(number)))
    return answers


def _mistake(draw: np.random.Generator, content: bytes, good: bytes) -> tuple[str, bytes]:
    """A request that is broken in some way, and in which."""
    noise = draw.integers(0, 256, int(draw.integers(1, 3000)), np.uint8).tobytes()
    hurt = bytearray(content)
    for place in draw.integers(0, len(hurt), int(draw.integers(1, 20))):
        hurt[place] = int(draw.integers(0, 256))
    cut = bytes(hurt[: int(draw.integers(1, len(hurt)))])
    text = base64.b64encode(content)[: int(draw.integers(1, 200))].decode()
    form = b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n" + noise
    made = {
        "good": good,
        "noise as image": _request(noise, "image/png"),
        "damaged image": _request(bytes(hurt), "image/png"),
        "half an image": _request(cut, "image/png"),
        "broken JSON": _request(f'{{"images": ["{text}"'.encode(), "application/json"),
        "broken base64": _request(f'{{"images": ["{text}"]}}'.encode(), "application/json"),
        "broken form": _request(form, "multipart/form-data; boundary=x"),
        "cut-off body": good[: -int(draw.integers(1, len(content)))],
        "noise as HTTP": noise,
        "strange header": good.replace(b"Content-Type", noise[:20].translate(None, b"\r\n:") + b"a"),
    }
    what = list(made)[int(draw.integers(len(made)))]
    return what, made[what]


def _memory(pid: int) -> list[int]:
    """Resident bytes of a process and of those that it has started."""
    below = [
        int(each)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for each in task.read_text().split()
    ]
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in (pid, *below)]
    return [each * os.sysconf("SC_PAGE_SIZE") for each in pages]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("what", nargs="*", default=["mnist", "resnet18"])
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    for name in chosen.what:
        if name == "soak":
            soak(chosen.seconds)
        elif name == "malformed":
            malformed()
        else:
            compare(name, chosen.seconds, chosen.rounds)


if __name__ == "__main__":
    main()
