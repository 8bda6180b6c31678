# SPDX-License-Identifier: Apache-2.0
"""The table of predictions of an evaluation: one row per image, written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dual_skd.errors import InputError
from dual_skd.utils.csv_text import read_rows
from dual_skd.utils.files import write_csv
from dual_skd.utils.wording import quoted


class PredictionTable(NamedTuple):
    """Content of ``predictions_test.csv`` or ``predictions_validation.csv``.

    Attributes:
        images: path of each image.
        labels: class indices (N,); zeros and ones (N, K) with several labels per image.
        probabilities: (N, K), with the nine significant digits that are written.
        class_names: names of the K classes.
        columns: every further column as it is written: ``predicted``, ``uncertainty``, ``prediction_set``, ...
    """

    images: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: list[str]
    columns: dict[str, list[str]]

    def take(self, rows: Sequence[int]) -> PredictionTable:
        """The table of these rows, in their order."""
        return self._replace(
            images=[self.images[row] for row in rows],
            labels=self.labels[rows],
            probabilities=self.probabilities[rows],
            columns={name: [values[row] for row in rows] for name, values in self.columns.items()},
        )


def write_predictions(
    path: str | Path,
    images: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    multi_label: bool = False,
    extra: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes image, label, predicted, ``p_`` and a probability per class, then the extra columns: all or nothing.

    Args:
        path: the CSV file; its folder is made where it doesn't exist.
        images: path of each image.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        probabilities: (N, K).
        class_names: in the order of the probabilities.
        multi_label: labels are joined by "|", and every class above one half is predicted.
        extra: name -> a text per image.

    Raises:
        InputError: with ``multi_label`` the name of a class holds "|".
    """
    if multi_label and (joined := [name for name in class_names if "|" in name]):
        raise InputError(f'No label may hold "|", which joins those of an image; found {joined[0]}: rename the class.')
    extra = extra or {}
    predicted = probabilities > 0.5 if multi_label else probabilities.argmax(axis=1)

    header = ["image", "label", "predicted", *(f"p_{name}" for name in class_names), *extra]
    rows = (
        # not decimals: NLL lives on the smallest probabilities
        [image, named(label, class_names), named(chosen, class_names), *(f"{value:.9g}" for value in row), *others]
        for image, label, chosen, row, *others in zip(
            images, labels, predicted, probabilities, *extra.values(), strict=True
        )
    )
    write_csv(path, [header, *rows], private=True)


def read_predictions(path: str | Path, *, multi_label: bool = False) -> PredictionTable:
    """Reads what :func:`write_predictions` wrote.

    Raises:
        InputError: no such file, no images in it, a row that is cut, or columns and labels that don't fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No table of predictions {path}; make it: dual-skd evaluate {quoted(path.parent)}.")
    rows = list(read_rows(path))
    header = [name for name in rows[0] if name is not None] if rows else []
    names = [column[2:] for column in header if column.startswith("p_")]
    if not rows or not names or "label" not in header:
        raise InputError(f"{path} has no images, no column label or no columns p_<class>; evaluate again.")
    for number, fields in enumerate(rows, start=1):
        if None in fields or None in fields.values():  # as DictReader has fields too many, and too few
            raise InputError(f"{path}: image {number} has more or fewer fields than columns; evaluate again.")
    place = {name: number for number, name in enumerate(names)}
    try:
        chosen = [[place[name] for name in row["label"].split("|") if name] if multi_label else place[row["label"]]
                  for row in rows]  # fmt: skip
        probabilities = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: label or probability {error} doesn't fit its columns; evaluate again.") from error
    if multi_label:
        labels = np.zeros((len(rows), len(names)), dtype=int)
        for row, found in zip(labels, chosen, strict=True):
            row[found] = 1
    else:
        labels = np.array(chosen)
    columns = {name: [row[name] for row in rows] for name in header
               if name not in ("image", "label") and not name.startswith("p_")}  # fmt: skip
    return PredictionTable([row["image"] for row in rows], labels, probabilities, names, columns)


def named(label: np.ndarray | int, class_names: Sequence[str]) -> str:
    """Name of a class index, or the names at the ones of a row (K,), joined by "|"."""
    if np.ndim(label):
        return "|".join(name for name, there in zip(class_names, np.asarray(label), strict=True) if there)
    return class_names[int(label)]
