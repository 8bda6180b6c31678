# SPDX-License-Identifier: Apache-2.0
"""The command ``dual-skd suggest`` as a Python function, and what it returns."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dual_skd.api.result_base import Result
from dual_skd.errors import InputError
from dual_skd.options import Suggestion, read
from dual_skd.runs.places import find_model, require_run
from dual_skd.utils.csv_text import read_rows
from dual_skd.utils.files import expanded, make_folder, read_json, write_csv, write_json, write_text
from dual_skd.utils.log import shown_in_scripts
from dual_skd.utils.wording import counted

if TYPE_CHECKING:
    from dual_skd.serving.prediction import Prediction
    from dual_skd.serving.suggestions.pool import Pool
    from dual_skd.serving.suggestions.strategies import Choice

logger = logging.getLogger(__name__)

FOLDER = "suggestions"  # in output_dir
STUDY_COLUMNS = ("rank", "StudyInstanceUID", "AccessionNumber", "PatientID", "image")


@dataclass(frozen=True, repr=False)
class SuggestionResult(Result):
    """Images without labels in the order in which to label them, read from the folder that holds them.

    Args:
        folder: ``suggestions`` in the folder of a run.

    Raises:
        InputError: there are no suggestions in this folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", expanded(self.folder))
        if not self.table.is_file():
            raise InputError(f"There is no {self.table}; `dual-skd suggest OUT --unlabelled FOLDER` makes one.")

    @property
    def table(self) -> Path:
        """A row per image, or per patient: the first is to be labelled first."""
        return self.folder / "suggestions.csv"

    @property
    def page(self) -> Path:
        """The same with pictures."""
        return self.folder / "suggestions.html"

    @property
    def worklist(self) -> Path:
        """The paths alone, a line each; of patients all their images."""
        return self.folder / "worklist.txt"

    @property
    def studies(self) -> Path | None:
        """The DICOM studies of the worklist; None without any."""
        path = self.folder / "studies.csv"
        return path if path.is_file() else None

    @property
    def suggestions(self) -> list[dict[str, str]]:
        """The rows of the table."""
        return list(read_rows(self.table))

    @cached_property
    def _record(self) -> dict[str, Any]:
        return read_json(self.folder / "suggestions.json")

    @property
    def problems(self) -> dict[str, str]:
        """Image -> why it can't be used."""
        return dict(self._record.get("problems") or {})

    def title(self) -> str:
        return f"Suggested: {self.table}"

    def rows(self) -> list[tuple[str, str | Path]]:
        unit = self._record.get("per", "image")
        done, of = len(self.suggestions), self._record.get("candidates", 0)
        bad = counted(len(self.problems), "image can't be used", "images can't be used")
        return [
            ("chosen", f"{counted(done, unit)} of {of}, by {self._record.get('strategy')}"),
            *(("" if place else "notes", note) for place, note in enumerate(self._record.get("notes") or [])),
            ("not used", f"{bad}, see suggestions.json" if self.problems else ""),
            ("pictures", self.page),
            ("worklist", self.worklist),
            ("studies", self.studies or ""),
        ]

    def next_command(self) -> str:
        return ""


def suggest(
    output_dir: str | Path = "output", *, unlabelled: str | Path | None = None, **options: Any
) -> SuggestionResult:
    """Orders images without labels by what their labels would teach, as ``dual-skd suggest`` does.

    Writes ``suggestions`` in the folder of the run: a table, a page with pictures, and a worklist.

    Args:
        output_dir: of the run, whose pair is asked.
        unlabelled: a folder, a table, a DICOM tree or an .npz file; None takes the images without labels that the run
            was given.
        options: those of :class:`dual_skd.options.Suggestion`, such as ``number=100``, ``per="patient"``.

    Raises:
        InputError: an option, the model or the images can't be used.
    """
    given = options if unlabelled is None else options | {"unlabelled": str(unlabelled)}
    asked = read(Suggestion, given)
    folder = expanded(output_dir)
    require_run(folder)
    from dual_skd.api.suggestion_page import suggestion_page  # these bring PyTorch and MONAI
    from dual_skd.serving.suggestions.pool import read_pool
    from dual_skd.serving.suggestions.strategies import rank
    from dual_skd.serving.torch_predictor import TorchPredictor

    with shown_in_scripts():
        predictor = TorchPredictor(
            find_model(folder), device=asked.device, unexpected_input=asked.unexpected_input
        )  # fmt: skip
        pool = read_pool(folder, predictor, asked)
        patients = _patients(pool, asked)
        chosen = rank(asked.strategy, pool.answers, asked.number, seed=asked.seed, copies=pool.copies,
                      patients=patients)  # fmt: skip
        names = [pool.records[one.image].image for one in chosen]
        answers = pool.answers.of([one.image for one in chosen])
        predictions = predictor.rules.predictions(names, *answers.probabilities[:2])
        target = make_folder(folder / FOLDER, private=True)
        together = _together(pool, chosen, patients)
        _write_lists(target, pool, chosen, together)
        _write_table(target / "suggestions.csv", pool, chosen, predictions, together)
        page = suggestion_page(predictor, pool, chosen, predictions, together, asked)
        write_text(target / "suggestions.html", page, private=True)
        candidates = len(pool.records) if patients is None else len(set(patients))
        record = {"strategy": asked.strategy, "per": asked.per, "seed": asked.seed, "candidates": candidates,
                  "notes": pool.notes, "problems": dict(pool.problems)}  # fmt: skip
        write_json(target / "suggestions.json", record, private=True)
    return SuggestionResult(target)


def _patients(pool: Pool, asked: Suggestion) -> list[str] | None:
    """A patient for each image, where patients are suggested; an image of an unknown one is its own."""
    if asked.per == "image":
        return None
    if not any(record.patient for record in pool.records):
        raise InputError(
            "per is 'patient', but no image without a label has a known patient; give a --patient-pattern that "
            "finds the patient in the path, or a table with a column patient, or leave per out."
        )
    return [record.patient or record.image for record in pool.records]


def _together(pool: Pool, chosen: Sequence[Choice], patients: Sequence[str] | None) -> list[list[int]]:
    """Places of the images that each choice stands for: its own, or those of its patient, its own first."""
    if patients is None:
        return [[one.image] for one in chosen]
    of: dict[str, list[int]] = defaultdict(list)
    for place, patient in enumerate(patients):
        of[patient].append(place)
    return [[one.image, *(place for place in of[patients[one.image]] if place != one.image)] for one in chosen]


def _write_table(
    path: Path, pool: Pool, chosen: Sequence[Choice], predictions: Sequence[Prediction], together: Sequence[list[int]]
) -> None:
    """A row per choice."""

    def cells() -> Iterator[list[Any]]:
        classes = list(predictions[0].probabilities)
        yield ["rank", "image", "patient", "images", "score", "disagreement", "uncertainty", "predicted",
               *(f"p_{name}" for name in classes), "nearest"]  # fmt: skip
        for number, (one, found, members) in enumerate(zip(chosen, predictions, together, strict=True), 1):
            record, row = pool.records[one.image], found.row()
            yield [
                number, record.image, record.patient, len(members), f"{one.score:.6g}", row.get("disagreement", ""),
                row["uncertainty"], found.label, *(row[f"p_{name}"] for name in classes),
                "" if one.nearest is None else one.nearest + 1,
            ]  # fmt: skip

    write_csv(path, cells(), private=True)


def _write_lists(folder: Path, pool: Pool, chosen: Sequence[Choice], together: Sequence[list[int]]) -> None:
    """The paths, and the DICOM studies that they are of: what a PACS is asked for."""
    from dual_skd.data.records.patients import ids_of

    members = [(number, place) for number, places in enumerate(together, 1) for place in places]
    images = [pool.records[place].image for _, place in members]
    write_text(folder / "worklist.txt", "".join(f"{image}\n" for image in images), private=True)
    found = ids_of(pool.records, [place for _, place in members])
    studies: dict[str, list[Any]] = {}
    for number, place in members:
        if place in found and (ids := found[place]).study:
            studies.setdefault(ids.study, [number, ids.study, ids.accession, ids.patient, pool.records[place].image])
    path = folder / "studies.csv"
    if studies:
        write_csv(path, [list(STUDY_COLUMNS), *studies.values()], private=True)
    else:
        path.unlink(missing_ok=True)  # of a former call
