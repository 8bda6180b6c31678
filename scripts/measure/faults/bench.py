# SPDX-License-Identifier: Apache-2.0
"""Where faults are tried: tiny data and networks, a fresh folder each time, and what undisturbed commands leave."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dual_skd.data import write_demo
from dual_skd.networks.build import build_network
from scripts import CONFIGS
from scripts.measure.faults.files import damaged, differences, digests
from scripts.measure.faults.process import Started

LARGE = {"layers": [1, 1, 1, 1], "channels": [16, 16, 16, 16]}
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
COUNTS = {"train": 24, "val": 9, "test": 9}
TRACEBACK = "Traceback (most recent call last)"
OF_LOGGING = f"--- Logging error ---\n{TRACEBACK}"  # Python's own remark; the command goes on
INFERENCE = ["monai.bundle", "run", "inference", "--config_file", str(CONFIGS / "inference.json")]
# what stands after `python -m`, in a folder with `data`, and for all but the first and check with `run`
COMMANDS = {
    "train": "dual_skd train data -o run --config options.json",
    "evaluate": "dual_skd evaluate run --device cpu",
    "inference": " ".join([*INFERENCE, "--dataset_dir data --output_dir run --explain True --num_workers 1"]),
    "report": "dual_skd report run --no-speed",
    "check": "dual_skd check data --page out/check.html --json out/check.json --fix-list out/fix.csv"
    " --clean-list out/clean.csv",
    "export": "dual_skd export run --formats onnx --seconds 0.1",
    "package": "scripts.release.package_bundle --output out --models run/models",
}
AFTER_EVALUATION = ("report",)
# commands that are tried under every fault: export, which starts Python anew for every step, takes minutes
EVERY = ("train", "evaluate", "inference", "report", "check")


@dataclass
class Outcome:
    """What came of a fault: how often it was tried, and what was lost, each time in a line."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_tried: str = ""

    def add(self, problems: Sequence[str], note: str = "") -> None:
        """Counts one trial; it was survived if there is no problem."""
        self.tried += 1
        if problems:
            self.lost.append("; ".join(problems))
        if note and note not in self.notes:
            self.notes.append(note)


class Bench:
    """Makes folders to try faults in, and knows what undisturbed commands leave in them.

    Args:
        work: folder of all trials.
    """

    def __init__(self, work: Path) -> None:
        self.work = work.resolve()
        self.base = self.work / "base"
        self._seconds: dict[str, float] = {}
        if not (self.base / "ready").is_file():
            shutil.rmtree(self.base, ignore_errors=True)
            self.base.mkdir(parents=True)
            write_demo(self.base / "data", counts=COUNTS)
            torch.manual_seed(1)
            weights = build_network("resnet18", num_classes=5, in_channels=3, **LARGE).state_dict()
            torch.save(weights, self.base / "large.pt")
            self.write_options(self.base)
            (self.base / "ready").touch()

    def write_options(self, folder: Path, **more: Any) -> None:
        """Writes ``options.json`` for a training of three epochs of three steps, with a checkpoint after each."""
        content = {
            "image_size": 32, "epochs": 3, "batch_size": 8, "device": "cpu", "cache": "none", "num_workers": 1,
            "checkpoint_minutes": 0, "large": "resnet18", "large_options": LARGE, "small": "resnet18",
            "small_options": SMALL, "pretrained": str(self.base / "large.pt"),
        }  # fmt: skip
        (folder / "options.json").write_text(json.dumps(content | more))

    def place(self, name: str, command: str = "train", *, own_data: bool = False) -> Path:
        """A fresh folder in which a command can run, with what it needs.

        Args:
            name: of the folder.
            command: of :data:`COMMANDS`.
            own_data: whether the data are a copy, to be damaged, instead of a link.
        """
        folder = self.work / "trials" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(self.base / "options.json", folder)
        if own_data:
            shutil.copytree(self.base / "data", folder / "data")
        else:
            (folder / "data").symlink_to(self.base / "data")
        if command not in ("train", "check"):
            before = "evaluate" if command in AFTER_EVALUATION else "train"
            self.reference(before)
            shutil.copytree(self.work / "undisturbed" / before / "1" / "run", folder / "run")
            _rename(folder / "run", self.work / "undisturbed" / before / "1", folder)
        return folder

    def reference(self, command: str) -> tuple[dict[str, str], set[str]]:
        """What an undisturbed command leaves, and the names whose content two of them agree about."""
        record = self.work / "undisturbed" / f"{command}.json"
        if not record.is_file():
            found, seconds = [], []
            for number in ("1", "2"):
                trial = self.place(f"undisturbed_{command}", command)
                began = time.monotonic()
                started = Started(trial, COMMANDS[command].split())
                if code := started.wait():
                    raise SystemExit(
                        f"The undisturbed command {command} failed ({code}); see {trial}.\n{started.said()}"
                    )
                seconds.append(time.monotonic() - began)
                found.append(digests(trial))
                final = self.work / "undisturbed" / command / number
                shutil.rmtree(final, ignore_errors=True)
                final.parent.mkdir(parents=True, exist_ok=True)
                trial.rename(final)
                _rename(final, trial, final)
            same = sorted(name for name in found[0] if found[0][name] == found[1].get(name))
            record.write_text(json.dumps({"expected": found[0], "same": same, "seconds": max(seconds)}, indent=1))
        content = json.loads(record.read_text())
        self._seconds[command] = content["seconds"]
        return content["expected"], set(content["same"])

    def seconds(self, command: str) -> float:
        """How long an undisturbed command takes."""
        self.reference(command)
        return self._seconds[command]

    def problems(self, folder: Path, command: str) -> list[str]:
        """Repeats a command that was disturbed; how what is left differs from what an undisturbed one leaves."""
        broken = [f"before the repetition {one}" for one in damaged(folder)]
        started = Started(folder, COMMANDS[command].split())
        code = started.wait()
        if code:
            return [*broken, f"the repetition ended with {code}: {last_line(started.said())}"]
        expected, compared = self.reference(command)
        return broken + differences(expected, digests(folder), compared)


def sentence_problems(
    started: Started, *, codes: Sequence[int] = (1,), words: str = "", silent: bool = False
) -> list[str]:
    """What is wrong with how a command ended: it should have said one sentence and have one of these exit codes.

    Args:
        started: the command.
        codes: that it may have.
        words: of the sentence.
        silent: whether it may say nothing, as nobody would read it.
    """
    said, found = started.said().replace(OF_LOGGING, ""), []
    if started.code not in codes:
        found.append(f"exit code {started.code}, expected {' or '.join(map(str, codes))}")
    if TRACEBACK in said:
        found.append(f"a stack: {last_line(said)}")
    elif not silent and started.code and started.code > 0 and started.code < 128 and "Error: " not in said:
        found.append(f"no sentence: {last_line(said)!r}")
    if words and words not in said:
        found.append(f"it doesn't say {words!r}: {last_line(said)!r}")
    return found


def last_line(text: str) -> str:
    """The last line that says something, shortened."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "nothing was said"


def sentence(text: str) -> str:
    """What a command gave as its error, shortened."""
    return next((line for line in text.splitlines() if line.startswith("Error: ")), last_line(text))[:300]


def _rename(folder: Path, former: Path, now: Path) -> None:
    """Puts another folder's name into JSON files that name files by absolute paths."""
    for path in folder.rglob("*.json"):
        if path.is_file() and not path.is_symlink():
            path.write_text(path.read_text().replace(str(former), str(now)))


def is_root() -> bool:
    """Whether this process may mount and become another user."""
    return os.geteuid() == 0


Fault = Callable[[Bench], Outcome]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: unique.
        done: what is done.
        expected: what should happen.
        try_it: tries it.
        needs_root: whether only root can.
    """

    name: str
    done: str
    expected: str
    try_it: Fault
    needs_root: bool = False


ROWS: dict[str, Row] = {}


def fault(name: str, done: str, expected: str, *, needs_root: bool = False) -> Callable[[Fault], Fault]:
    """Makes a function a row of the table."""

    def add(function: Fault) -> Fault:
        ROWS[name] = Row(name, done, expected, function, needs_root)
        return function

    return add


def numbered(name: str, count: int) -> Iterator[str]:
    """Names of folders."""
    return (f"{name.replace(' ', '_').replace(':', '')}_{number}" for number in range(1, count + 1))
