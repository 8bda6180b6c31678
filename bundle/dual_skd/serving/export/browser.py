# SPDX-License-Identifier: Apache-2.0
"""Chromium without a window, driven through two pipes by the Chrome DevTools Protocol; no port is opened."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

BROWSER = "DUAL_SKD_BROWSER"  # environment variable: the program
NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
    "chromium-headless-shell", "chrome-headless-shell",
    *(f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium")),
)  # fmt: skip
SWITCHES = (
    "--headless", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
SECONDS = 300.0  # one answer may take
_COMMANDS, _ANSWERS, _ABOVE = 3, 4, 10  # descriptors that Chromium reads and writes; ours are made higher


class BrowserFailed(Exception):
    """The browser gave no answer, or an error; the message is one line."""


def find_browser() -> str | None:
    """The program of Chromium or a relative, None where there is none."""
    named = os.environ.get(BROWSER)
    return next(filter(None, map(shutil.which, [named] if named else NAMES)), None)


class Page:
    """A page in a browser of its own.

    Attributes:
        requests: addresses that the page asked a network for, which it must not.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer, self._number = b"", 0
        self._session: dict[str, str] = {}
        self._loaded = False
        self.requests: list[str] = []

    def open(self, page: Path, *, size: tuple[int, int] = (1280, 900), touch: bool = False) -> None:
        """Loads a file from its ``file://`` address, in a window of this size in pixels."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "DOM"):
            self.send(f"{domain}.enable")
        width, height = size
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self.send("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._receive(time.monotonic() + SECONDS)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited."""
        return _value(self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True))

    def call(self, function: str, *arguments: Any) -> Any:
        """What a function of JavaScript returns for these plain values, awaited."""
        return self.evaluate(f"({function})({', '.join(json.dumps(one) for one in arguments)})")

    def with_files(self, function: str, files: Sequence[Path]) -> Any:
        """What a function of JavaScript returns for a list of ``File`` objects, awaited."""
        made = self.send(
            "Runtime.evaluate",
            expression="Object.assign(document.createElement('input'), {type: 'file', multiple: true})",
        )
        entry = made["result"]["objectId"]
        self.send("DOM.setFileInputFiles", files=[str(file.resolve()) for file in files], objectId=entry)
        declared = f"function() {{ return ({function})([...this.files]); }}"
        return _value(
            self.send(
                "Runtime.callFunctionOn", functionDeclaration=declared, objectId=entry, awaitPromise=True,
                returnByValue=True,
            )
        )  # fmt: skip

    def send(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        with _broken_pipes_named(), open(self._commands, "wb", closefd=False) as file:
            file.write(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while (answer := self._receive(deadline)).get("id") != self._number:
            pass
        if "error" in answer:
            raise BrowserFailed(f"the browser refuses {method}: {answer['error'].get('message')}")
        return answer.get("result", {})

    def _receive(self, deadline: float) -> dict[str, Any]:
        """The next answer or event; events that matter are noted."""
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise BrowserFailed(f"the browser gave no answer for {SECONDS:g} s")
            block = os.read(self._answers, 2**20)
            if not block:
                raise BrowserFailed("the browser ended")
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._loaded |= message.get("method") == "Page.loadEventFired"
        if message.get("method") == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            if not address.startswith(("file:", "data:", "blob:", "about:")):
                self.requests.append(address[:200])
        return message


@contextlib.contextmanager
def opened_page(page: Path, profile: Path, **options: Any) -> Iterator[Page]:
    """A page, loaded in a browser that ends with the block.

    Args:
        page: the HTML file.
        profile: folder of the browser's own files; removed with them by who made it.
        options: see :meth:`Page.open`.

    Raises:
        BrowserFailed: there is no browser, or it doesn't do what it is told.
    """
    program = find_browser()
    if program is None:
        raise BrowserFailed("there is no Chromium")
    read_commands, commands = _high_pipe()
    answers, write_answers = _high_pipe()
    arguments = [
        program,
        *SWITCHES,
        f"--user-data-dir={profile}",
        *["--no-sandbox"] * (os.geteuid() == 0),
        "about:blank",
    ]
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    pipes = [(os.POSIX_SPAWN_DUP2, read_commands, _COMMANDS), (os.POSIX_SPAWN_DUP2, write_answers, _ANSWERS)]
    process = os.posix_spawn(program, arguments, os.environ, file_actions=[*quiet, *pipes], setpgroup=0)
    for end in (read_commands, write_answers):
        os.close(end)
    try:
        found = Page(commands, answers)
        found.open(page, **options)
        yield found
    finally:
        for end in (commands, answers):
            os.close(end)
        _end(process)


def _high_pipe() -> tuple[int, int]:
    """A pipe whose descriptors aren't those that the browser is given."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for end in low)
    for end in low:
        os.close(end)
    return high[0], high[1]


def _end(process: int, seconds: float = 5.0) -> None:
    """Waits for a browser whose pipes are closed, which ends it, and kills it and its children after a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(process, os.WNOHANG)[0]:
            return
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)


@contextlib.contextmanager
def _broken_pipes_named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise BrowserFailed("the browser ended") from None


def _value(answer: dict[str, Any]) -> Any:
    if "exceptionDetails" in answer:
        details = answer["exceptionDetails"]
        text = details.get("exception", {}).get("description") or details.get("text", "")
        raise BrowserFailed(f"the page failed: {text.splitlines()[0]}")
    return answer["result"].get("value")
