# SPDX-License-Identifier: Apache-2.0
"""Under which name an evaluation is kept, and which images it measured."""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from itertools import chain, count
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.split_file import SECTIONS, save_split
from dual_skd.errors import InputError
from dual_skd.utils.files import read_json, write_text

logger = logging.getLogger(__name__)

# other entries of metrics.json, and predictions that aren't of an evaluation
RESERVED_NAMES = "validation training train epochs best final class_names key_metric speed robustness revision".split()


def evaluation_name(
    report_as: Any, split: str, datalist: DataList, output_dir: str | Path, dataset_dir: str | Path | None = None
) -> str:
    """The name under which an evaluation is kept: one that overwrites nothing else.

    Args:
        report_as: text or a number, as the user gave it. None: the split for the run's own images; for another data
            set the name of its folder, with that of the parent or a number where other images have the name.
        split: which images are measured, ``test`` or ``val``.
        datalist: the data that are evaluated; those of another data set have no training images.
        output_dir: of the run.
        dataset_dir: of the data.

    Raises:
        InputError: the name can't be part of a file's name, or belongs to something else.
    """
    external = not datalist.train
    others = [own for own in SECTIONS if own != split or external]
    if report_as is None:
        return _name_of(Path(str(dataset_dir)), datalist, Path(output_dir)) if external else split
    name = str(report_as)
    if not name.strip() or name.startswith(".") or any(mark in name for mark in '/\\\0:*?"<>|\n'):
        raise InputError(f"report_as is {name!r}, which becomes part of file names; take letters, digits, _ and -.")
    if _is_reserved(name) or name in others:
        raise InputError(
            f"report_as is {name!r}, under which the run keeps something else than "
            f"{'another data set' if external else f'the {split} images'}; take another name, such as hospital_b."
        )
    return name


def _is_reserved(name: str) -> bool:
    return name in RESERVED_NAMES or name.endswith("_auxiliary")


def _name_of(dataset_dir: Path, datalist: DataList, output_dir: Path) -> str:
    """A name for another data set under which the run keeps nothing, or only these images of an earlier evaluation."""
    place = dataset_dir.expanduser().absolute()
    plain = _slug(place.name if place.is_dir() else f"{place.parent.name}_{place.stem}")
    longer = _slug(f"{place.parent.name}_{place.name}") if place.is_dir() else plain
    numbered = (f"{longer}_{number}" for number in count(2))
    entries = read_json(output_dir / "metrics.json")
    for name in chain([plain, longer], numbered):
        free = name not in entries or _same_images(datalist, read_json(note_path(output_dir, name)))
        if free and name not in SECTIONS and not _is_reserved(name):
            break
    if name != plain:
        logger.info("This run keeps other numbers under %s, so those of %s are kept under %s.", plain, place, name)
    return name


def _slug(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", name)).strip("_") or "other"


def _same_images(datalist: DataList, note: dict[str, Any]) -> bool:
    """Whether an earlier evaluation measured some of these images: the same data set, perhaps changed since."""
    before = {record["image"] for section in SECTIONS.values() for record in note.get(section) or []}
    return any(record.image in before for records in datalist.splits.values() for record in records)


def note_path(directory: str | Path, name: str) -> Path:
    """The file with the list of the images that were measured under a name."""
    return Path(directory) / f"datalist_{name}.json"


class MeasuredImages:
    """Handler of the evaluator that logs which images are measured, and keeps their list.

    ``datalist_<name>.json`` is the data list of another data set than that of the training run, for its patients and
    groups; or ``{"own": <section of the run's datalist.json>}``, where the run's own images go by another name.

    Args:
        output_dir: of the run.
        name: of the evaluation.
        split: ``test`` or ``val``.
        datalist: the data that are evaluated.
    """

    def __init__(self, output_dir: str | Path, name: str, split: str, datalist: DataList) -> None:
        self.path, self.name = note_path(output_dir, name), name
        self.split, self.datalist = split, datalist

    def attach(self, engine: Engine) -> None:
        """Registers the handler at start and end of the evaluation; attach it before the report's."""
        engine.add_event_handler(Events.STARTED, self._log_images)
        engine.add_event_handler(Events.COMPLETED, self)

    def _log_images(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        data = self.datalist
        source = f"the run's own {SECTIONS[self.split]} split" if data.train else data.source
        notes = [] if data.train else [f"{note[0].upper()}{note[1:]}." for note in data.notes]
        lines = [f"Measured: {source}", data.counted(self.split), *notes]
        logger.info("\n  ".join(["%s"] * len(lines)), *lines)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        if not self.datalist.train:
            save_split(self.datalist, self.path)
        elif self.name != self.split:
            write_text(self.path, json.dumps({"own": SECTIONS[self.split]}) + "\n", private=True)
        else:  # of a former evaluation under this name
            self.path.unlink(missing_ok=True)
