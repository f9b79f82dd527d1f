"""A server in a process of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    token: str = ""
    """Sent with every request; the empty one is not."""

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            connection.request(method, path, body, {**own, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        status, content = self.ask(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        return status, json.loads(content)

    def workers(self) -> list[int]:
        """The processes that the server has started and that open runs."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        below = [each for task in tasks for each in task.read_text().split()]
        lines = {int(each): Path(f"/proc/{each}/cmdline").read_bytes() for each in below}
        return [each for each, line in lines.items() if b"spawn_main" in line]


@contextmanager
def serving(*words: str | Path, **environment: str) -> Iterator[Server]:
    """`stresslens serve` with these words on a free port, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stresslens", "serve", *map(str, words), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    if found is None:
        raise AssertionError(line + process.communicate()[1])
    try:
        yield Server(process, int(found[1]))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
        assert "Traceback" not in told, told
