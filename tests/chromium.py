"""A headless Chromium, driven over a pipe by its DevTools protocol: what a page requests, says and does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-extensions "
    "--remote-debugging-pipe"
)


class Chromium:
    """One tab. `requests`, `errors` gather what the pages opened since the last `open` asked for
    and complained about."""

    def __init__(self, profile: Path, flags: Sequence[str] = ()) -> None:
        command_in, self._out = os.pipe()
        self._in, answers_out = os.pipe()
        assert BINARY is not None
        shell = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null'
        command = [
            "sh",
            "-c",
            shell,
            BINARY,
            *FLAGS.split(),
            *flags,
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            command, stdin=command_in, stdout=answers_out, stderr=subprocess.DEVNULL
        )
        os.close(command_in)
        os.close(answers_out)
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = False
        page = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params} | (
            {"sessionId": self._session} if self._session else {}
        )
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._in, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        text, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith("data:"):
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.errors.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled":
                self.errors.append(str(params["args"]))
            case "Page.loadEventFired":
                self._loaded = True
        return message

    def open(self, file: Path, *, width: int = 1280, height: int = 900) -> float:
        """Opens a file and returns the seconds until it was loaded and painted."""
        return self.visit(file.resolve().as_uri(), width=width, height=height)

    def visit(self, url: str, *, width: int = 1280, height: int = 900) -> float:
        """As `open`, by its address."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.load(url)
        painted = (
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => "
            "done(performance.now() / 1000))))"
        )
        return float(self.evaluate(painted))

    def load(self, url: str) -> None:
        self.requests, self.errors, self._loaded = [], [], False
        self.send("Page.navigate", url=url)
        while not self._loaded:
            self._next()

    def evaluate(self, script: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key of the keyboard, by its name: Tab, Enter, ArrowRight, …"""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "ArrowRight": 39}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "windowsVirtualKeyCode": codes[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)
