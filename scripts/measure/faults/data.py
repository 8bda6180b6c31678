# SPDX-License-Identifier: Apache-2.0
"""Data that vanish or change under a command, and data of one image or one class."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.measure.faults.bench import COMMANDS, Bench, Outcome, fault, sentence, sentence_problems
from scripts.measure.faults.process import Started

TRAIN = COMMANDS["train"].split()
AGAIN = "one sentence that names the file; once it is back, the same command leaves what an undisturbed one leaves"


def _in_training(bench: Bench, name: str, harm: Callable[[Path], object], codes=(0, 1)) -> Outcome:
    """Harms the data after the first and after the fourth checkpoint of a training, and mends them."""
    outcome = Outcome()
    for place, file in enumerate(("last.pt", "metrics.json")):
        trial = bench.place(f"{name}_{place}", own_data=True)
        started = Started(trial, TRAIN)
        started.wait(until=(trial / "run" / file).is_file)
        harm(trial / "data")
        started.wait()
        found = sentence_problems(started, codes=codes)
        if started.code:
            outcome.notes.append(sentence(started.said()).replace(str(trial), "."))
        shutil.rmtree(trial / "data", ignore_errors=True)
        shutil.copytree(bench.base / "data", trial / "data")
        outcome.add(found + bench.problems(trial, "train"))
    return outcome


def _images(data: Path) -> list[Path]:
    return sorted((data / "images").iterdir())


@fault("data: images vanish", "all images are removed while it trains", AGAIN)
def _vanish(bench: Bench) -> Outcome:
    return _in_training(bench, "images_vanish", lambda data: [path.unlink() for path in _images(data)])


@fault("data: folder vanishes", "the data's folder is removed while it trains", AGAIN)
def _folder(bench: Bench) -> Outcome:
    return _in_training(bench, "folder_vanishes", shutil.rmtree)


@fault("data: images cut", "all images are cut in half while it trains", AGAIN)
def _cut(bench: Bench) -> Outcome:
    return _in_training(
        bench, "images_cut", lambda data: [path.write_bytes(path.read_bytes()[:1500]) for path in _images(data)]
    )


@fault("data: images become text", "all images become text while it trains", AGAIN)
def _text(bench: Bench) -> Outcome:
    return _in_training(bench, "images_text", lambda data: [path.write_text("hello") for path in _images(data)])


@fault("data: vanish under other commands", "all images are removed under evaluate, inference and check", AGAIN)
def _others(bench: Bench) -> Outcome:
    outcome = Outcome()
    for command in ("evaluate", "inference", "check"):
        for share in (0.15, 0.4):
            trial = bench.place(f"gone_{command}_{share}", command, own_data=True)
            for path in (trial / "run").glob("*.json"):
                path.write_text(path.read_text().replace(str(bench.base / "data"), str(trial / "data")))
            started = Started(trial, COMMANDS[command].split())
            started.wait_for(share * bench.seconds(command))
            shutil.rmtree(trial / "data" / "images")
            started.wait()
            found = sentence_problems(started, codes=(0, 1))
            if started.code:
                outcome.notes.append(sentence(started.said()).replace(str(trial), "."))
            shutil.copytree(bench.base / "data" / "images", trial / "data" / "images")
            outcome.add([f"{command}: {one}" for one in found])
    return outcome


def _between(bench: Bench, name: str, change: Callable[[Path], object], *, refused: bool, said: str = "") -> Outcome:
    """Kills a training, changes the data, and gives the command again."""
    outcome = Outcome()
    trial = bench.place(name, own_data=True)
    started = Started(trial, TRAIN)
    started.wait(until=(trial / "run" / "previous.pt").is_file)
    started.kill()
    change(trial / "data")
    started = Started(trial, TRAIN)
    started.wait()
    found = sentence_problems(started, codes=(1,) if refused else (0,), words=said)
    outcome.notes.append(sentence(started.said()).replace(str(trial), "."))
    if refused:
        shutil.rmtree(trial / "data")
        shutil.copytree(bench.base / "data", trial / "data")
        found += bench.problems(trial, "train")
    outcome.add(found)
    return outcome


REFUSED = "refused in one sentence; with the former data it goes on as if nothing had been"


@fault("data: other pictures before a resume", "an image is replaced by another, of another size", REFUSED)
def _replaced(bench: Bench) -> Outcome:
    def change(data: Path) -> None:
        first, *_, last = _images(data)
        shutil.copy(last, first)
        with first.open("ab") as file:
            file.write(b"\0\0")

    return _between(bench, "other_pictures", change, refused=True, said="the data (another data_hash)")


@fault("data: other pictures of equal size before a resume", "all images are mixed up; names and sizes stay", REFUSED)
def _mixed_up(bench: Bench) -> Outcome:
    def change(data: Path) -> None:
        sizes: dict[int, list[Path]] = {}
        for path in _images(data):
            sizes.setdefault(path.stat().st_size, []).append(path)
        for paths in sizes.values():
            contents = [path.read_bytes() for path in paths]
            for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
                path.write_bytes(content)

    return _between(bench, "mixed_up", change, refused=True, said="the data (another data_hash)")


@fault("data: an image less before a resume", "the list lacks an image", REFUSED)
def _less(bench: Bench) -> Outcome:
    return _between(
        bench,
        "less",
        lambda data: shorten(data, {"train": 23}),
        refused=True,
        said="the data (another data_hash)",
    )


@fault("data: a class more before a resume", "two images have a new class", REFUSED)
def _class(bench: Bench) -> Outcome:
    def change(data: Path) -> None:
        text = (data / "datalist.csv").read_text()
        (data / "datalist.csv").write_text(text.replace("nodule", "mass", 2))

    return _between(bench, "class_more", change, refused=True, said="the data (another data_hash)")


def shorten(data: Path, numbers: dict[str, int], classes: Sequence[str] = ("interstitial", "nodule", "normal")) -> None:
    """Leaves so many rows of each split in the list, the classes by turns; all of a split without a number."""
    with (data / "datalist.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if row["split"] not in numbers]
    for split, number in numbers.items():
        of_class = [[row for row in rows if (row["split"], row["label"]) == (split, name)] for name in classes]
        kept += [row for together in zip(*of_class, strict=True) for row in together][:number]
    with (data / "datalist.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)


ONE_CLASS = ("normal",)
SIZES: dict[str, tuple[dict[str, int], Sequence[str], dict[str, Any], bool]] = {  # rows, options, whether it trains
    "one training image": ({"train": 1}, (), {}, False),
    "three training images, one a class": ({"train": 3}, (), {}, True),
    "one image of each split": ({"train": 1, "val": 1, "test": 1}, (), {}, False),
    "nine training images in batches of eight": ({"train": 9}, (), {}, True),
    "batches of one": ({"train": 4}, (), {"batch_size": 1}, False),
    "batches of one at 64 pixels": ({"train": 4}, (), {"batch_size": 1, "image_size": 64}, True),
    "one class in validation": ({"val": 3}, ONE_CLASS, {"key_metric": "macro_auc"}, True),
    "one validation image": ({"val": 1}, (), {}, True),
    "no validation": ({"val": 0}, (), {}, True),
    "one class in the test": ({"test": 3}, ONE_CLASS, {}, True),
    "one test image": ({"test": 1}, (), {}, True),
    "one class in all": ({"train": 8, "val": 3, "test": 3}, ONE_CLASS, {}, False),
}


@fault(
    "data: one of everything",
    f"{len(SIZES)} sets, such as one training image, batches of 1, one class in validation",
    "trains, evaluates, reports; or one sentence",
)
def _sizes(bench: Bench) -> Outcome:
    outcome = Outcome()
    for name, (numbers, classes, options, trains) in SIZES.items():
        trial = bench.place(name.replace(" ", "_"), own_data=True)
        bench.write_options(trial, **options)
        shorten(trial / "data", numbers, *[classes] * bool(classes))
        found, notes = [], []
        for command in ("train", "evaluate", "report"):
            started = Started(trial, COMMANDS[command].split())
            started.wait()
            found += [f"{name}: {command}: {one}" for one in sentence_problems(started, codes=(0, 1))]
            if started.code:
                notes.append(f"{command}: {sentence(started.said())}".replace(str(trial), "."))
            if command == "train" and started.code:
                break
        if trains != (started.code == 0 or command != "train"):
            found.append(f"{name}: expected it to {'train' if trains else 'be refused'}")
        if (trial / "run" / "metrics.json").is_file():
            json.loads((trial / "run" / "metrics.json").read_text())
        outcome.add(found, f"{name}: {'; '.join(notes) or 'works'}")
    return outcome
