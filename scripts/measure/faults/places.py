# SPDX-License-Identifier: Apache-2.0
"""Folders that can't be written, vanish, are full, or have odd names."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from functools import partial
from pathlib import Path

from scripts.measure.faults.bench import (
    COMMANDS,
    EVERY,
    Bench,
    Outcome,
    fault,
    numbered,
    sentence,
    sentence_problems,
)  # fmt: skip
from scripts.measure.faults.files import damaged, digests
from scripts.measure.faults.process import Started, as_nobody, own_mounts

ONE = "one sentence, exit code 1; then the same command leaves what an undisturbed one leaves"
OUTPUT = {"check": "out", "package": "out"}  # of the others it is `run`
ODD_NAMES = (
    "with  spaces",
    "two\nlines",
    "quote'\"s",
    "50 %",
    "#1",
    "$HOME",
    "@run",
    "ü 中 🩻",
    "[a]{b}*",
    "~",
    "x" * 200,
)


def _each(
    bench: Bench, name: str, prepare=lambda trial, output: None, *, first=None, commands=EVERY, codes=(1,)
) -> Outcome:
    """Gives each command once, disturbed by ``prepare(trial, output)``, whose return value undoes it."""
    outcome = Outcome()
    for command in commands:
        trial = bench.place(f"{name}_{command}", command)
        output = trial / OUTPUT.get(command, "run")
        undo = prepare(trial, output)
        started = Started(trial, COMMANDS[command].split(), first=first and partial(first, trial, output))
        started.wait()
        found = sentence_problems(started, codes=codes)
        if undo is not None:
            undo()
        outcome.add([f"{command}: {one}" for one in found + bench.problems(trial, command)])
        if started.code:
            outcome.notes.append(sentence(started.said()).replace(str(trial), "."))
    return outcome


@fault("output: of another user", "each command as a user who may not write there", ONE, needs_root=True)
def _other_user(bench: Bench) -> Outcome:
    return _each(bench, "other_user", first=lambda trial, output: as_nobody())


@fault("output: read-only disk", "each command on a disk that is mounted read-only", ONE, needs_root=True)
def _read_only(bench: Bench) -> Outcome:
    def mount(trial: Path, output: Path) -> None:
        own_mounts()
        subprocess.run(["mount", "--bind", trial, trial], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", trial], check=True)
        os.chdir(trial)

    return _each(bench, "read_only", first=mount)


def _limit_files(kilobytes: int) -> None:
    """Limits the size of files; what is said goes into a pipe, which has no such limit."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(writer)
        while text := os.read(reader, 65536):
            os.write(1, text)
        os._exit(0)
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.close(writer)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, 1024 * kilobytes))


for kilobytes in (0, 4, 32):
    how = f"each command with `ulimit -f`, {kilobytes} KiB, like a full disk"
    fault(f"output: no file over {kilobytes} KiB", how, ONE)(
        partial(
            _each,
            name=f"ulimit_f_{kilobytes}",
            codes=(0, 1),
            first=lambda trial, output, kilobytes=kilobytes: _limit_files(kilobytes),
        )
    )


@fault("output: a file in its place", "the output folder's name is that of a file", ONE)
def _file_in_place(bench: Bench) -> Outcome:
    def prepare(trial: Path, output: Path):
        if output.exists():
            shutil.rmtree(output)
        output.write_text("hello")
        return lambda: _restore(bench, trial, output)

    return _each(bench, "file", prepare)


def _restore(bench: Bench, trial: Path, output: Path) -> None:
    """Puts a run as it was before the command into the place of what is there."""
    if output.is_file():
        output.unlink()
    shutil.rmtree(output, ignore_errors=True)
    if output.name == "run" and "undisturbed" not in trial.name:
        command = next(
            name for name in sorted(COMMANDS, key=len, reverse=True) if trial.name.split("__")[0].endswith(name)
        )
        if command != "train":
            other = bench.place(f"{trial.name}_restored", command)
            shutil.copytree(other / "run", output)
            for path in output.rglob("*.json"):
                path.write_text(path.read_text().replace(str(other), str(trial)))


@fault(
    "output: vanishes", "the output folder is removed at 2 moments of each command", ONE.replace("one", "no stack, one")
)
def _vanishes(bench: Bench) -> Outcome:
    outcome = Outcome()
    for command in EVERY:
        for place in range(2):
            trial = bench.place(f"vanish_{command}__{place}", command)
            output = trial / OUTPUT.get(command, "run")
            started = Started(trial, COMMANDS[command].split())
            if command == "train":  # the first moment is after the first checkpoint
                started.wait(until=(output / ("last.pt", "previous.pt")[place]).is_file)
            else:
                started.wait_for((0.3 + 0.4 * place) * bench.seconds(command))
            shutil.rmtree(output, ignore_errors=True)
            started.wait()
            found = sentence_problems(started, codes=(0, 1))
            broken = damaged(trial)
            _restore(bench, trial, output)
            outcome.add([f"{command}: {one}" for one in found + broken + bench.problems(trial, command)])
            if started.code:
                outcome.notes.append(sentence(started.said()).replace(str(trial), "."))
    return outcome


@fault("output: odd names", f"train, evaluate and predict in {len(ODD_NAMES)} folders such as `two⏎lines`",
       "the weights and the predictions of a folder `run`")  # fmt: skip
def _odd_names(bench: Bench) -> Outcome:
    outcome = Outcome()
    expected, _ = bench.reference("evaluate")
    for name, folder in zip(ODD_NAMES, numbered("odd", len(ODD_NAMES)), strict=True):
        trial = bench.place(folder)
        (trial / "data").unlink()
        (trial / name).mkdir()
        (trial / name / "data").symlink_to(bench.base / "data")
        where = f"./{name}/run"
        found = []
        for words in (
            ["dual_skd", "train", f"./{name}/data", "-o", where, "--config", "options.json"],
            ["dual_skd", "evaluate", where, "--device", "cpu"],
            ["dual_skd", "predict", f"./{name}/data/images", "--model", where, "--csv", f"./{name}/answers.csv"],
        ):
            started = Started(trial, words)
            started.wait()
            found += [f"{words[1]} in {name!r:.30}: {one}" for one in sentence_problems(started, codes=(0,))]
        left = digests(trial / name)
        found += [f"{one} differs or is missing" for one in ("run/models/model.pt",) if left.get(one) != expected[one]]
        found += [f"no {one}" for one in ("answers.csv", "run/report/report.html") if one not in left]
        outcome.add(found)
    return outcome
