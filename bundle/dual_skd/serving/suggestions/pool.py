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
from dual_skd.data.records.patients import with_pattern
from dual_skd.data.records.record import Record
from dual_skd.data.records.sources import read_source
from dual_skd.data.records.split_file import load_split
from dual_skd.data.records.unlabelled_records import records_without_labels
from dual_skd.errors import InputError
from dual_skd.networks.inspect import classifier_of
from dual_skd.options.choices import TwinSearch
from dual_skd.options.data import DataOptions
from dual_skd.options.shared import SIMILARITY
from dual_skd.options.use import Suggestion
from dual_skd.serving.suggestions.answers import ask
from dual_skd.serving.suggestions.strategies import Answers
from dual_skd.serving.torch_predictor import TorchPredictor
from dual_skd.utils.files import read_json
from dual_skd.utils.progress import bar
from dual_skd.utils.wording import check_command, counted


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
    division = folder / "datalist.json"
    known = _with_patients(load_split(division), asked.patient_pattern)
    source = read_source(division)
    if asked.unlabelled:
        source = replace(source, unlabelled=())  # else those of the run
    options = _options(folder, predictor, asked)
    found = records_without_labels(source, options, known.splits, dataset_dir=division)
    if asked.strategy == "badge":
        _require_features(predictor)
    prepared = Prepared(predictor, found.records, asked.batch_size, asked.num_workers)
    answers = ask(predictor, prepared.batches(), features=asked.strategy == "badge")
    if not prepared.records:
        raise InputError(_why_none(asked, known, prepared))
    new, copies, of_copies = without_copies(
        [record.image for record in prepared.records],
        [record.image for members in known.splits.values() for record in members],
        spatial_dims=known.spatial_dims, search=asked.twin_search, similarity=asked.twin_similarity,
        command=check_command(division, asked.unlabelled),
    )  # fmt: skip
    if not new:
        raise InputError(
            f"Every image of {asked.unlabelled or 'the run without labels'} that can be used has a near duplicate "
            "among the images of the run; give others."
        )
    return Pool([prepared.records[place] for place in new], answers.of(new), copies, prepared.problems,
                [*found.notes, *of_copies])  # fmt: skip


def _with_patients(known: DataList, pattern: str | None) -> DataList:
    """The images of the run; where it knows no patients, with those that the given pattern finds."""
    if not pattern or any(record.patient for members in known.splits.values() for record in members):
        return known
    return replace(
        known,
        splits={name: with_pattern(members, known.root, pattern) for name, members in known.splits.items()},
    )


def _require_features(predictor: TorchPredictor) -> None:
    try:
        classifier_of(predictor.network)
    except InputError as error:
        raise InputError(f"Strategy badge can't be used: {str(error).split(';')[0]}; give uncertainty.") from error


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


class Prepared:
    """Images as the network takes them, a batch at a time; those that can't be used are noted.

    Args:
        predictor: prepares them.
        records: of all images.
        size: of a batch.
        workers: threads that decode.

    Attributes:
        records: of the images that were prepared so far.
        problems: (image, sentence) of the others.
    """

    def __init__(self, predictor: TorchPredictor, records: Sequence[Record], size: int = 32, workers: int = 2) -> None:
        self.records: list[Record] = []
        self.problems: list[tuple[str, str]] = []
        self._predictor, self._all, self._size, self._workers = predictor, records, size, max(workers, 1)

    def batches(self) -> Iterator[list[Tensor]]:
        """The images, in batches."""
        size = self._size
        with ThreadPoolExecutor(self._workers) as pool, bar(
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


def _why_none(asked: Suggestion, known: DataList, prepared: Prepared) -> str:
    if prepared.problems:
        image, problem = prepared.problems[0]
        return f"None of {counted(len(prepared.problems), 'image')} can be used, for example {image}: {problem}"
    return f"{known.source} has no images without labels; give the folder of some as unlabelled: --unlabelled FOLDER."


def without_copies(
    images: Sequence[str],
    known: Sequence[str],
    *,
    spatial_dims: int,
    search: TwinSearch = "always",
    similarity: float = SIMILARITY,
    command: str = "",
) -> tuple[list[int], dict[int, list[int]], list[str]]:
    """The images without a near duplicate among those that are known.

    Args:
        images: locators of images without labels.
        known: of images with labels.
        spatial_dims: 2 for images, 3 for volumes.
        search: when to search at all, see :func:`~dual_skd.data.near_duplicates.search.finder_if_wanted`.
        similarity: from which two images are near duplicates.
        command: of a check of these images, for the remedy where ``auto`` doesn't search.

    Returns:
        their places; near duplicates among them, place -> places in this new list; notes.

    Raises:
        InputError: an image can't be read.
    """
    notes: list[str] = []
    together = [*images, *known]
    finder = finder_if_wanted(together, spatial_dims=spatial_dims, search=search, command=command, notes=notes)
    if finder is None:
        return list(range(len(images))), {}, notes
    twins = finder.find_best(images, known, min_similarity=similarity)
    if twins:
        those = counted(len(twins), "image was", "images were")
        notes.append(f"{those} left out because of a twin among the images that have labels")
    new = [place for place, image in enumerate(images) if image not in twins]
    number_of = {images[place]: number for number, place in enumerate(new)}
    copies: dict[int, list[int]] = defaultdict(list)
    for pair in finder.find(list(number_of), list(number_of), min_similarity=similarity):
        one, other = number_of[pair.image], number_of[pair.other]
        copies[one].append(other)
        copies[other].append(one)
    if copies:
        notes.append(f"{len(copies)} images have a near-duplicate among the others; of such, one is chosen")
    return new, dict(copies), notes
