# SPDX-License-Identifier: Apache-2.0
"""The images that weights of an earlier run have learned from: they can't test what starts or learns from them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dual_skd.data.reading.locators import real_place
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.image_files import holds_run
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import UNLABELLED, first_few
from dual_skd.data.records.split_file import SECTIONS
from dual_skd.errors import InputError
from dual_skd.options import weight_files
from dual_skd.utils.files import expanded
from dual_skd.utils.spelling import key_of

logger = logging.getLogger(__name__)

Place = tuple[str, str]
People = dict[Place, str]  # image -> patient, "" where unknown


def require_unseen(data: DataList, weights: Mapping[str, str]) -> None:
    """Refuses validation and test images that given weights have learned from.

    A file in the folder of a run is known by the ``run.json`` and ``datalist.json`` there, and so are the weights that
    this run started or learned from itself. The training images of all these runs and those without labels may be no
    validation or test images here, and their validation images no test images, as they chose a model. The same holds
    for other images of their patients, if both lists share images and name their patients alike. Nothing is known of a
    file outside a run, nor of images that were moved.

    Args:
        data: of this run.
        weights: files of weights by the option that names them.

    Raises:
        InputError: there are such images.
    """
    if not weights:
        return
    held_out = {split: _people(data.measured(split)) for split in ("val", "test")}
    here = _people([*data.train, *data.unlabelled]) | held_out["val"] | held_out["test"]
    for option, file in weights.items():
        runs = list(_runs_behind(expanded(file), set()))
        if not runs:
            logger.info("%s %s is of no known run, so nothing tells which images it has learned from.", option, file)
        for run in runs:
            _refuse(here, held_out, run, option)


def _runs_behind(file: Path, known: set[Path]) -> Iterator[Path]:
    """The folder of the run that a file of weights is of, and those of the runs whose weights that one had."""
    folders = [folder for place in (file.absolute(), file.resolve()) for folder in place.parents]
    run = next(filter(holds_run, folders), None)
    if run is None or run.resolve() in known:
        return
    known.add(run.resolve())
    yield run
    config = _content(run / "run.json").get("config")
    for before in weight_files(config).values() if isinstance(config, dict) else ():
        yield from _runs_behind(expanded(before), known)


def _content(path: Path) -> dict[str, Any]:
    """The content of a run's file; empty, with a warning, where it is damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        logger.warning("%s can't be read (%s), so nothing tells what that run has learned from.", path, error)
        return {}


def _refuse(here: People, held_out: Mapping[str, People], run: Path, option: str) -> None:
    """Raises :class:`InputError` if a run has learned from validation or test images, or others of their patients."""
    content = _content(run / "datalist.json")
    parts = {part: _people(_records(content.get(part))) for part in (*SECTIONS.values(), UNLABELLED)}
    everything = {place: patient for people in parts.values() for place, patient in people.items()}
    shared = here.keys() & everything.keys()
    if not shared:
        logger.info("The run in %s, which %s is of, has none of these images.", run, option)
        return
    same_names = all(here[place] == everything[place] for place in shared)
    trained = parts[SECTIONS["train"]] | parts[UNLABELLED]
    for split, learned in (("val", trained), ("test", trained | parts[SECTIONS["val"]])):
        patients = {patient for patient in learned.values() if patient} if same_names else set()
        found = held_out[split]
        seen = ["#".join(filter(None, place)) for place in found if place in learned or found[place] in patients]
        if seen:
            raise InputError(
                f"The run in {run}, which {option} is of, has learned from {len(seen)} of the {len(found)} "
                f"{SECTIONS[split]} images, or from others of their patients (for example {first_few(seen)}), so their "
                "metrics would be too good. Divide the images as that run did: with its seed, shares and fold, or with "
                f"{run / 'datalist.json'} as dataset_dir. New images go beside its validation and test images, which a "
                "column split keeps."
            )


def _records(entries: Any) -> Iterator[Record]:
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and "\0" not in (image := str(entry.get("image") or "")):
            yield Record(image, None, str(entry.get("patient") or ""))


def _people(records: Any) -> People:
    """Patients of images, by their place. The frames of one file are one image here, as they show one patient."""
    found = {}
    for record in records:
        path, fragment = real_place(record.image)
        found[path, "" if fragment.startswith("frame=") else fragment] = key_of(record.patient)
    return found
