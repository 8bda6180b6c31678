# SPDX-License-Identifier: Apache-2.0
"""Runs that are moved, changed or damaged between two parts of their training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.measure.faults.bench import COMMANDS, SMALL, Bench, Outcome, fault, sentence, sentence_problems
from scripts.measure.faults.files import digests
from scripts.measure.faults.process import Started

TRAIN = COMMANDS["train"].split()
SAME = "goes on to the weights of an undisturbed run, bit by bit"
REFUSED = "refused in one sentence; nothing is changed, and the former command goes on"
RECORD = "run/run.json"  # says when the part began; the rest of it is in the checkpoint
WEIGHTS = ("models/model.pt", "models/auxiliary.pt", "metrics.json")


def _stopped(bench: Bench, name: str, *, own_data: bool = False) -> Path:
    """A folder with a run that was killed in its second epoch."""
    trial = bench.place(name, own_data=own_data)
    started = Started(trial, TRAIN)
    started.wait(until=(trial / "run" / "models" / "auxiliary.pt").is_file)
    started.kill()
    return trial


def _goes_on(bench: Bench, trial: Path, words: Sequence[str], run: Path, *, names: Sequence[str] = WEIGHTS) -> Outcome:
    """Gives a command in ``trial`` and compares the run's main files."""
    outcome, (expected, _) = Outcome(), bench.reference("train")
    started = Started(trial, words)
    started.wait()
    found = sentence_problems(started, codes=(0,))
    left = digests(run) if run.is_dir() else {}
    found += [f"{name} differs or is missing" for name in names if left.get(name) != expected[f"run/{name}"]]
    outcome.add(found)
    return outcome


def _refused(
    bench: Bench, trial: Path, undo: Callable[[], object], said: str = "", words: Sequence[str] = TRAIN
) -> Outcome:
    """Gives a command, which should be refused and change nothing; then undoes what was changed, and goes on."""
    outcome, before = Outcome(), digests(trial)
    started = Started(trial, words)
    started.wait()
    found = sentence_problems(started, words=said)
    found += [
        f"it changed {name}" for name, one in digests(trial).items() if before.get(name) != one and name != RECORD
    ]
    undo()
    outcome.add(found + bench.problems(trial, "train"), sentence(started.said()).replace(str(trial), "."))
    return outcome


@fault("resume: output folder renamed", "output_dir has another name than before the kill", SAME)
def _renamed(bench: Bench) -> Outcome:
    trial = _stopped(bench, "renamed")
    (trial / "run").rename(trial / "other")
    words = ["other" if word == "run" else word for word in TRAIN]
    return _goes_on(bench, trial, words, trial / "other")


@fault("resume: data moved", "the data lie in another folder than before the kill", SAME)
def _moved(bench: Bench) -> Outcome:
    trial = _stopped(bench, "moved", own_data=True)
    (trial / "data").rename(trial / "elsewhere")
    words = ["elsewhere" if word == "data" else word for word in TRAIN]
    return _goes_on(bench, trial, words, trial / "run")


for name, changed in {
    "num_workers and cache": {"num_workers": 0, "cache": "memory"}, "cache disk": {"cache": "disk", "num_workers": 2},
    "checkpoint_minutes": {"checkpoint_minutes": 10},
}.items():  # fmt: skip

    def _other(bench: Bench, changed: dict[str, Any] = changed, name: str = name) -> Outcome:
        trial = _stopped(bench, f"other_{name.replace(' ', '_')}")
        bench.write_options(trial, **changed)
        return _goes_on(bench, trial, TRAIN, trial / "run")

    fault(f"resume: other {name}", f"the command has other values of {name}", SAME)(_other)


for name, changed in {
    "learning_rate": {"learning_rate": 0.1}, "network": {"small_options": {**SMALL, "channels": [4, 4, 4, 4]}},
    "epochs": {"epochs": 5}, "image_size": {"image_size": 48},
}.items():  # fmt: skip

    def _setting(bench: Bench, changed: dict[str, Any] = changed, name: str = name) -> Outcome:
        trial = _stopped(bench, f"setting_{name}")
        bench.write_options(trial, **changed)
        said = f"other settings: {next(iter(changed))}"
        return _refused(bench, trial, lambda: bench.write_options(trial), said)

    fault(f"resume: another {name}", f"the command has another {name}", REFUSED)(_setting)


def _with_states(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    states = torch.load(path, weights_only=True)
    change(states)
    torch.save(states, path)


def _other_shape(states: dict[str, Any]) -> None:
    name = next(name for name, one in states["network"].items() if one.ndim == 4)
    states["network"][name] = states["network"][name][:-1].clone()


CONTENTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "tensors of another shape": _other_shape,
    "a network more": lambda states: states["network"].update(another=torch.zeros(2)),
    "no network": lambda states: states.pop("network"),
    "no random numbers": lambda states: states.pop("random"),
    "another optimiser": lambda states: states["optimizer"]["param_groups"].append({"params": [0]}),
    "no trainer": lambda states: states.pop("trainer"),
}
for name, change in CONTENTS.items():

    def _content(bench: Bench, change: Callable[[dict[str, Any]], object] = change, name: str = name) -> Outcome:
        trial = _stopped(bench, f"content_{name.replace(' ', '_')}")
        kept = trial / "kept.pt"
        shutil.copy(trial / "run" / "last.pt", kept)
        _with_states(trial / "run" / "last.pt", change)

        def undo() -> None:
            kept.replace(trial / "run" / "last.pt")

        return _refused(bench, trial, undo)

    fault(f"resume: last.pt has {name}", f"last.pt, whole, has {name}, as of other code", REFUSED)(_content)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9999])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "absent": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": _cut,
    "text": lambda path: path.write_text("hello"),
    "flipped": _flip,
}
for name, harm in DAMAGE.items():

    def _newest(bench: Bench, harm: Callable[[Path], object] = harm, name: str = name) -> Outcome:
        trial = _stopped(bench, f"last_{name}")
        harm(trial / "run" / "last.pt")
        return _goes_on(bench, trial, TRAIN, trial / "run")

    fault(f"resume: last.pt is {name}", f"last.pt is {name} after the kill", f"goes on from previous.pt: {SAME}")(
        _newest
    )


for file in ("run.json", "metrics.json", "datalist.json", "models", "tensorboard"):
    for name in ("absent", "text"):

        def _file(bench: Bench, file: str = file, name: str = name) -> Outcome:
            trial = _stopped(bench, f"{file}_{name}")
            path = trial / "run" / file
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            if name == "text":
                path.write_text("hello")
            started = Started(trial, TRAIN)
            started.wait()
            if started.code == 0:
                outcome = Outcome()
                outcome.add(sentence_problems(started, codes=(0,)) + bench.problems(trial, "train"))
                return outcome
            outcome = Outcome()
            path.unlink(missing_ok=True)
            found = sentence_problems(started) + bench.problems(trial, "train")
            outcome.add(found, sentence(started.said()).replace(str(trial), "."))
            return outcome

        fault(
            f"resume: {file} is {name}", f"{file} is {name} after the kill", f"{SAME}; or one sentence that names it"
        )(_file)


@fault("resume: both checkpoints damaged", "last.pt and previous.pt are cut", "one sentence with the remedies")
def _both(bench: Bench) -> Outcome:
    trial = _stopped(bench, "both")
    for name in ("last.pt", "previous.pt"):
        (trial / "run" / name).rename(trial / f"kept_{name}")
        (trial / "run" / name).write_bytes(b"PK")

    def undo() -> None:
        for name in ("last.pt", "previous.pt"):
            (trial / f"kept_{name}").replace(trial / "run" / name)

    return _refused(bench, trial, undo, "no other checkpoint")


@fault("resume: --fresh", "the killed run is started afresh", f"the former one is kept in former_1; {SAME}")
def _fresh(bench: Bench) -> Outcome:
    trial = _stopped(bench, "fresh")
    outcome = _goes_on(bench, trial, [*TRAIN, "--fresh"], trial / "run")
    if not (trial / "run" / "former_1" / "last.pt").is_file():
        outcome.lost.append("the former run is gone")
    json.loads((trial / "run" / "former_1" / "run.json").read_text())
    return outcome
