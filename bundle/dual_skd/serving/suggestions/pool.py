# SPDX-License-Identifier: Apache-2.0
"""The images that may be suggested: without labels, readable, and none that the run knows already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from dual_skd.data.near_duplicates.search import finder_if_wanted
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import UNLABELLED
from dual_skd.data.records.sources import read_source
from dual_skd.data.records.split_file import load_split
from dual_skd.data.records.unlabelled_records import records_without_labels
from dual_skd.errors import InputError
from dual_skd.options.data import DataOptions
from dual_skd.options.use import Suggestion
from dual_skd.serving.suggestions.answers import ask
from dual_skd.serving.suggestions.strategies import Answers
from dual_skd.serving.torch_predictor import TorchPredictor
from dual_skd.utils.files import read_json
from dual_skd.utils.progress import bar
from dual_skd.utils.wording import counted


@dataclass
class Pool:
    """Images without labels, and what the networks say about them.

    Args:
        records: of the images that can be used.
        answers: of the networks, in their order.
        copies: place of an image -> places of its near duplicates.
        problems: (image, sentence) of those that can't be used.
        notes: decisions in plain sentences.
    """

    records: list[Record]
    answers: Answers
    copies: dict[int, list[int]]
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_pool(folder: Path, predictor: TorchPredictor, asked: Suggestion) -> Pool:
    """Finds the images without labels, and asks the networks about them.

    Left out are images of the run, near duplicates of them, and all images of patients who have validation or test
    images, because a label makes an image one of training.

    Args:
        folder: of the run.
        predictor: its model.
        asked: where the images are, and how they are compared.

    Raises:
        InputError: the images of the run have gone, or no image is left.
    """
    known = load_split(folder / "datalist.json")
    found = records_without_labels(
        replace(read_source(folder / "datalist.json"), root=known.root), _options(folder, predictor, asked),
        known.splits,
    )  # fmt: skip
    notes = list(found.notes)
    prepared = _Prepared(predictor, asked, found.records)
    answers = ask(predictor, prepared.batches(), features=asked.strategy == "badge") if found.records else None
    if answers is None or not prepared.records:
        raise InputError(_why_none(asked, known, prepared))
    new, copies, of_copies = _without_copies(prepared.records, known, predictor, asked)
    if not new:
        raise InputError(
            f"All {counted(len(prepared.records), 'image')} of {asked.unlabelled or 'the run without labels'} have a "
            "near duplicate among the images of the run; give others."
        )
    return Pool([prepared.records[place] for place in new], answers.of(new), copies, prepared.problems,
                [*notes, *of_copies])  # fmt: skip


def _options(folder: Path, predictor: TorchPredictor, asked: Suggestion) -> DataOptions:
    """How the images are found and their patients named: as in the run, unless it is said otherwise."""
    of_run = (read_json(folder / "run.json").get("config") or {}).get("patient_pattern")
    return DataOptions(
        unlabelled=asked.unlabelled,
        patient_pattern=of_run if asked.patient_pattern is None else asked.patient_pattern,
        image_column=asked.image_column,
        allow_outside=asked.allow_outside,
        spatial_dims=predictor.preprocessing.get("spatial_dims", 2),
        frame=predictor.preprocessing.get("frame"),
        keep_twins=True,  # which are looked for below, in training too
        on_bad_file=None,  # which the predictor finds
    )


class _Prepared:
    """Images as the network takes them, a batch at a time; those that can't be read are noted."""

    def __init__(self, predictor: TorchPredictor, asked: Suggestion, records: Sequence[Record]) -> None:
        self.records: list[Record] = []
        self.problems: list[tuple[str, str]] = []
        self._predictor, self._asked, self._all = predictor, asked, records

    def batches(self) -> Iterator[list[Tensor]]:
        size = self._asked.batch_size
        with ThreadPoolExecutor(max(self._asked.num_workers, 1)) as pool, bar(
            None, "Asking the networks", len(self._all)
        ) as progress:  # fmt: skip
            for start in range(0, len(self._all), size):
                batch = []
                part = self._all[start : start + size]
                for record, (image, problem) in zip(part, pool.map(self._prepare, part), strict=True):
                    if image is None:
                        self.problems.append((record.image, problem))
                        continue
                    self.records.append(record)
                    batch.append(image)
                progress.update(len(part))
                if batch:
                    yield batch

    def _prepare(self, record: Record) -> tuple[Tensor | None, str]:
        try:
            return self._predictor.prepare(record.image), ""
        except InputError as error:
            return None, str(error)


def _why_none(asked: Suggestion, known: DataList, prepared: _Prepared) -> str:
    if prepared.problems:
        image, problem = prepared.problems[0]
        return f"None of {counted(len(prepared.problems), 'image')} can be used, for example {image}: {problem}"
    return f"{known.source} has no images without labels; give the folder of some as unlabelled: --unlabelled FOLDER."


def _without_copies(
    records: Sequence[Record], known: DataList, predictor: TorchPredictor, asked: Suggestion
) -> tuple[list[int], dict[int, list[int]], list[str]]:
    """Places of the images without a near duplicate in the run, the near duplicates among them, and notes."""
    notes: list[str] = []
    own = [record.image for members in known.splits.values() for record in members]
    images = [record.image for record in records]
    finder = finder_if_wanted(
        [*images, *own], spatial_dims=predictor.preprocessing.get("spatial_dims", 2), search=asked.twin_search,
        dataset_dir=asked.unlabelled or UNLABELLED, notes=notes,
    )  # fmt: skip
    if finder is None:
        return list(range(len(records))), {}, notes
    twins = finder.find_best(images, own, min_similarity=asked.twin_similarity)
    if twins:
        notes.append(
            f"{counted(len(twins), 'image was', 'images were')} left out because of a twin among the images of the run"
        )
    new = [place for place, image in enumerate(images) if image not in twins]
    place_of = {images[place]: number for number, place in enumerate(new)}
    copies: dict[int, list[int]] = defaultdict(list)
    for pair in finder.find(list(place_of), list(place_of), min_similarity=asked.twin_similarity):
        one, other = place_of[pair.image], place_of[pair.other]
        copies[one].append(other)
        copies[other].append(one)
    return new, dict(copies), notes
