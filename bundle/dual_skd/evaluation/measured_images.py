# SPDX-License-Identifier: Apache-2.0
"""Under which name an evaluation is kept, and which images it measured."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.split_file import SECTIONS, save_split
from dual_skd.errors import InputError

logger = logging.getLogger(__name__)

# other entries of metrics.json, and predictions that aren't of an evaluation
TAKEN = "validation training train epochs best final class_names key_metric speed robustness".split()


def evaluation_name(report_as: Any, split: str, dataset_dir: str | Path | None = None) -> str:
    """The name under which an evaluation is kept, once it is seen that it harms nothing else.

    Args:
        report_as: as the user gave it: text or a number.
        split: which images of the run are measured, ``test`` or ``val``.
        dataset_dir: another data set, whose images may be kept under any name.

    Raises:
        InputError: the name can't be part of a file's name, or belongs to something else.
    """
    name = str(report_as)
    if not name.strip() or name.startswith(".") or any(mark in name for mark in '/\\\0:*?"<>|\n'):
        raise InputError(f"report_as is {name!r}, which becomes part of file names; take letters, digits, _ and -.")
    others = [own for own in SECTIONS if own != split and dataset_dir is None]
    if name in (*TAKEN, *others) or name.endswith("_auxiliary"):
        raise InputError(
            f"report_as is {name!r}, under which the run keeps something else than the {split} images; take another "
            "name, such as hospital_b."
        )
    return name


def note_path(directory: str | Path, name: str) -> Path:
    """The file that says which images were measured under a name."""
    return Path(directory) / f"datalist_{name}.json"


class MeasuredImages:
    """Handler of the evaluator that notes which images were measured, where the evaluation's name doesn't say it.

    ``datalist_<name>.json`` is the data list of another data set than that of the training run, for its patients and
    groups; or ``{"own": <section of the run's datalist.json>}``, where the run's own images go by another name.

    Args:
        output_dir: of the run.
        name: of the evaluation.
        split: ``test`` or ``val``.
        datalist: the data that are evaluated.
    """

    def __init__(self, output_dir: str | Path, name: str, split: str, datalist: DataList) -> None:
        self.path, self.named_otherwise = note_path(output_dir, name), name != split
        self.split, self.datalist = split, datalist

    def attach(self, engine: Engine) -> None:
        """Registers the handler at the end of the evaluation; attach it before the report's."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        if not self.datalist.train:
            save_split(self.datalist, self.path)
            if not self.named_otherwise:
                logger.warning(
                    "The numbers of another data set stand in place of the run's own %s images; with --report_as NAME "
                    "they stand beside them.",
                    self.split,
                )
        elif self.named_otherwise:
            self.path.write_text(json.dumps({"own": SECTIONS[self.split]}) + "\n", encoding="utf-8")
        else:  # of a former evaluation under this name
            self.path.unlink(missing_ok=True)
