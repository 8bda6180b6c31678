# SPDX-License-Identifier: Apache-2.0
"""A computer that has little of something, or lacks what others have."""

from __future__ import annotations

import os
import resource
from functools import partial
from pathlib import Path

from scripts.measure.faults.bench import COMMANDS, EVERY, Bench, Outcome, fault, numbered, sentence, sentence_problems
from scripts.measure.faults.files import digests
from scripts.measure.faults.process import Started, mount_small

SHARED = "/dev/shm"  # noqa: S108 - where processes share memory
WORKS = "the result of an undisturbed command"
OR_ONE = f"{WORKS}, or one sentence and exit code 1"


def _limit(kind: int, number: int) -> None:
    resource.setrlimit(kind, (number, number))


def _limit_memory(megabytes: int) -> None:
    """Leaves this process so much more address space than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + megabytes * 2**20)


def _each(bench: Bench, name: str, codes=(0, 1), commands=EVERY, silent=False, **how) -> Outcome:
    """Gives each command once under a limit, and again without."""
    outcome = Outcome()
    for command in commands:
        trial = bench.place(f"{name}_{command}", command)
        started = Started(trial, COMMANDS[command].split(), **how)
        started.wait()
        found = sentence_problems(started, codes=codes, silent=silent)
        if started.code:
            outcome.notes.append(sentence(started.said()).replace(str(trial), "."))
        outcome.add([f"{command}: {one}" for one in found + bench.problems(trial, command)])
    return outcome


for megabytes in (16, 64, 256):
    how = f"each command with {megabytes} MiB more memory (`ulimit -v`) than at its start"
    limit = partial(_limit_memory, megabytes)
    fault(f"computer: {megabytes} MiB more", how, OR_ONE)(partial(_each, name=f"memory_{megabytes}", first=limit))
for number in (16, 32, 64):
    fault(f"computer: {number} open files", f"each command with `ulimit -n {number}`", OR_ONE)(
        partial(_each, name=f"files_{number}", first=partial(_limit, resource.RLIMIT_NOFILE, number))
    )


@fault("computer: small /dev/shm", "training with loader processes and 64 KiB of /dev/shm", OR_ONE, needs_root=True)
def _shared(bench: Bench) -> Outcome:
    outcome = Outcome()
    for workers, folder in enumerate(numbered("shm", 2), 1):
        trial = bench.place(folder)
        bench.write_options(trial, num_workers=workers, image_size=128)
        started = Started(trial, COMMANDS["train"].split(), first=partial(mount_small, SHARED, "64k"))
        started.wait()
        outcome.add(sentence_problems(started, codes=(0, 1)), sentence(started.said()).replace(str(trial), "."))
    return outcome


@fault("computer: LANG=C", "train, evaluate and predict in an ASCII locale, with names such as `Straße 中`", WORKS)
def _ascii(bench: Bench) -> Outcome:
    outcome = Outcome()
    env = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": None, "PYTHONIOENCODING": None}
    trial = bench.place("ascii")
    (trial / "data").unlink()
    name = "Straße 中"
    (trial / name).symlink_to(bench.base / "data")
    for words in (
        ["dual_skd", "check", name, "--page", "größe.html", "--fix-list", "größe.csv"],
        ["dual_skd", "train", name, "-o", "Läufe", "--config", "options.json"],
        ["dual_skd", "evaluate", "Läufe", "--device", "cpu"],
        ["dual_skd", "predict", f"{name}/images", "--model", "Läufe"],
    ):
        started = Started(trial, words, env=env, fresh=True)
        started.wait()
        outcome.add([f"{words[1]}: {one}" for one in sentence_problems(started, codes=(0,))])
    expected, _ = bench.reference("train")
    if digests(trial / "Läufe").get("models/model.pt") != expected["run/models/model.pt"]:
        outcome.lost.append("other weights")
    return outcome


HOMES = {"unset": None, "absent": "/nonexistent/home", "empty": "", "a file": "/etc/hostname", "not mine": "/proc/1"}
for kind, home in HOMES.items():
    fault(f"computer: HOME {kind}", f"train and check with HOME {kind}", WORKS)(
        partial(_each, name=f"home_{kind.replace(' ', '_')}", codes=(0,), fresh=True,
                commands=("train", "check") if kind != "unset" else ("train", "evaluate", "check"),
                env={"HOME": home, "XDG_CACHE_HOME": None})
    )  # fmt: skip


for streams in ((1,), (2,), (0, 1, 2)):
    shown = " ".join(f"{number}>&-" for number in streams)
    fault(f"computer: {shown}", f"train, evaluate, inference and check with closed streams ({shown})", WORKS)(
        partial(_each, name=f"closed_{''.join(map(str, streams))}", codes=(0,), fresh=True, streams=streams,
                commands=("train", "evaluate", "inference", "check"))
    )  # fmt: skip


def _to_full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def _to_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def _both_to_nobody() -> None:
    _to_nobody()
    os.dup2(1, 2)


for kind, first in {"a full disk": _to_full, "a closed pipe": _to_nobody}.items():
    fault(f"computer: stdout is {kind}", f"each command with {kind} as stdout", f"no stack; then {WORKS}")(
        partial(_each, name=kind.replace(" ", "_"), first=first, silent=first is _to_nobody)
    )
fault("computer: the terminal is gone", "train with stdout and stderr closed at the other end", WORKS)(
    partial(
        _each,
        name="both_closed_pipes",
        codes=(0, 1, 120),
        first=_both_to_nobody,
        silent=True,
        commands=("train", "evaluate"),
    )
)
