# SPDX-License-Identifier: Apache-2.0
"""Training in two processes, of which one is lost, frozen, or stopped."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from pathlib import Path

import psutil

from scripts import CONFIGS
from scripts.measure.faults.bench import TRACEBACK, Bench, Outcome, fault, last_line
from scripts.measure.faults.data import shorten
from scripts.measure.faults.files import digests
from scripts.measure.faults.process import Started

WEIGHTS = ("models/model.pt", "models/auxiliary.pt", "metrics.json")
ENDS = "ends within 90 s, all processes with it; the same command goes on to the same weights, bit by bit"
LIMIT = 90.0


def _words(trial: Path, *, port: int = 0, **more: object) -> list[str]:
    options = json.loads((trial / "options.json").read_text()) | {
        "batch_size": 4,
        "dataset_dir": "data",
        "output_dir": "run",
    }
    where = ["--master_addr", "127.0.0.1", "--master_port", str(port)] if port else ["--standalone"]
    files = f"['{CONFIGS / 'train.json'}','{CONFIGS / 'multi_gpu_train.json'}']"
    words = ["torch.distributed.run", *where, "--nproc_per_node", "2", "-m", "monai.bundle", "run", "training"]
    named = [part for name, value in (options | more).items() for part in (f"--{name}", str(value))]
    return [*words, "--config_file", files, *named]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _start(trial: Path, **more: object) -> Started:
    return Started(trial, _words(trial, **more), fresh=True)


def _undisturbed(bench: Bench) -> dict[str, str]:
    """What two undisturbed processes leave."""
    run = bench.work / "undisturbed" / "several"
    if not run.is_dir():
        trial = bench.place("undisturbed_several")
        started = _start(trial)
        if started.wait():
            raise SystemExit(f"Two processes failed; see {trial}.\n{started.said()}")
        run.parent.mkdir(exist_ok=True)
        (trial / "run").rename(run)
    return digests(run)


def _ranks(started: Started) -> list[psutil.Process]:
    """The training processes, by rank."""
    children = [one for one in psutil.Process(started.pid).children() if "monai.bundle" in " ".join(one.cmdline())]
    return sorted(children, key=lambda one: one.environ()["RANK"])


def _again(bench: Bench, trial: Path, found: list[str], **more: object) -> list[str]:
    expected = _undisturbed(bench)
    started = _start(trial, **more)
    if code := started.wait():
        return [*found, f"the repetition ended with {code}: {last_line(started.said())}"]
    left = digests(trial / "run")
    return found + [f"{name} differs" for name in WEIGHTS if left.get(name) != expected[name]]


def _in_training(bench: Bench, name: str, harm, **more: object) -> Outcome:
    """Harms a training of two processes after its first checkpoint, and repeats the command."""
    outcome = Outcome()
    _undisturbed(bench)
    trial = bench.place(name)
    started = _start(trial, **more)
    started.wait(until=(trial / "run" / "last.pt").is_file)
    began = time.monotonic()
    harm(started)
    code = started.wait(LIMIT)
    seconds = time.monotonic() - began
    found = [f"it took more than {LIMIT:g} s"] if seconds > LIMIT else []
    found += [f"a process was left: {one}" for one in started.left_behind()]
    said = re.findall(r"^(?:\[rank\d+\]: )?(Error: .+)", started.said(), re.MULTILINE)
    outcome.add(_again(bench, trial, found, **more), f"ended with {code} after {seconds:.0f} s: {' '.join(said[:1])}")
    return outcome


@fault("two processes: one is lost", "`kill -9` of rank 0, and of rank 1", ENDS)
def _lost(bench: Bench) -> Outcome:
    outcomes = [
        _in_training(bench, f"lost_{rank}", lambda started, rank=rank: _ranks(started)[rank].kill()) for rank in (0, 1)
    ]
    return _together(outcomes)


@fault("two processes: SIGTERM to torchrun", "as a scheduler stops a job", ENDS)
def _stopped(bench: Bench) -> Outcome:
    return _in_training(bench, "sigterm", lambda started: started.send(signal.SIGTERM))


@fault("two processes: kill -9 of torchrun", "the launcher is killed, and its processes are not", ENDS)
def _launcher(bench: Bench) -> Outcome:
    return _in_training(bench, "launcher", lambda started: started.send(signal.SIGKILL))


@fault("two processes: one is frozen", "SIGSTOP of rank 1, with timeout_minutes 0.2", ENDS)
def _frozen(bench: Bench) -> Outcome:
    return _in_training(bench, "frozen", lambda started: _ranks(started)[1].suspend(), timeout_minutes=0.2)


@fault("two processes: a busy port", "the port is another program's", "ends within 90 s with the port in a message")
def _port(bench: Bench) -> Outcome:
    outcome = Outcome()
    trial = bench.place("port")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        started = _start(trial, port=port)
        code = started.wait(LIMIT)
    said = started.said()
    found = [] if code not in (0, -9) and "EADDRINUSE" in said else [f"ended with {code}: {last_line(said)}"]
    outcome.add(_again(bench, trial, found), "torchrun's own message, with a stack" if TRACEBACK in said else "")
    return outcome


@fault("two processes: uneven data", "23 training images, and 5 of validation, for two processes", "trains")
def _uneven(bench: Bench) -> Outcome:
    outcome = Outcome()
    for name, splits in {
        "odd": {"train": 23, "val": 5},
        "few": {"train": 3, "val": 2},
        "one": {"train": 5, "val": 1},
    }.items():
        trial = bench.place(f"uneven_{name}", own_data=True)
        shorten(trial / "data", splits)
        started = _start(trial)
        code = started.wait(LIMIT)
        said = re.findall(r"^(?:\[rank\d+\]: )?(Error: .+)", started.said(), re.MULTILINE)
        good = code == 0 or (code == 1 and said)
        outcome.add(
            [] if good else [f"{splits}: ended with {code}: {last_line(started.said())}"],
            f"{name}: {' '.join(said[:1])}",
        )
    return outcome


def _together(outcomes: list[Outcome]) -> Outcome:
    return Outcome(
        sum(one.tried for one in outcomes), [line for one in outcomes for line in one.lost],
        [line for one in outcomes for line in one.notes],
    )  # fmt: skip
