# SPDX-License-Identifier: Apache-2.0
"""Finds out whether the class follows from how a file was stored, without looking at the picture.

A network can see many such properties: the size from which a picture was scaled, the noise of a scanner, the edges of
a format. If they go with the class, it learns them instead of the disease. File names are left out, as a network never
sees them.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from dual_skd.data.reading.inspection import FileFacts
from dual_skd.data.records.record import Record
from dual_skd.metrics.classification import area_under_roc

FOLDS = 5
BINS = 8  # quantile ranges into which many different numbers are cut
MIN_AUC = 0.65
CONFIDENCE = 0.95  # for all properties and classes together
MIN_CASES = 10  # patients (or images, where patients are unknown) that a class needs for a verdict

_ACQUISITION = "compare results per site and scanner, and balance the classes within each"
_STORAGE = "store the images of all classes the same way, or show that results hold within one kind"
_SIZE = "bring the images of all classes from one source, or crop them to the same region and size"
_SHAPE = (
    "train with --fit crop, which hides it (stretched images show it by their proportions, padded ones by a margin), "
    "or bring the images of all classes from one source"
)
# Property -> (attribute of the facts, or of the record; its axis; what to do). The size of a file is none of them: it
# follows from the picture and, without loss, from what no picture shows.
PROPERTIES: dict[str, tuple[str, int | None, str]] = {
    "mode": ("mode", None, _STORAGE),
    "bit depth": ("bits", None, _STORAGE),
    "format": ("format", None, _STORAGE),
    "transfer syntax": ("transfer_syntax", None, _STORAGE),
    "JPEG quality": ("jpeg_quality", None, _STORAGE),
    "width": ("shape", 0, _SIZE),
    "height": ("shape", 1, _SIZE),
    "depth": ("shape", 2, _SIZE),
    "aspect ratio": ("aspect", None, _SHAPE),
    "frames": ("frames", None, _SIZE),
    "spacing": ("spacing", 0, _ACQUISITION),
    "slice spacing": ("spacing", 2, _ACQUISITION),
    "orientation": ("orientation", None, _ACQUISITION),
    "modality": ("modality", None, _ACQUISITION),
    "manufacturer": ("manufacturer", None, _ACQUISITION),
    "institution": ("institution", None, _ACQUISITION),
    "site": ("site", None, _ACQUISITION),
}


@dataclass(frozen=True)
class Shortcut:
    """A property from which a class can be predicted.

    Args:
        name: a key of :data:`PROPERTIES`.
        label: name of the class that it predicts best.
        auc: area under the ROC curve, cross-validated.
        low: lower end of its confidence interval.
        evidence: the values that predict best, in words.
        remedy: what to do.
    """

    name: str
    label: str
    auc: float
    low: float
    evidence: str
    remedy: str

    @property
    def sentence(self) -> str:
        return (
            f"the class can be predicted from the {self.name} without looking at the image, "
            f"AUC = {self.auc:.2f} ({self.evidence})"
        )


def find_shortcuts(
    records: Sequence[Record], facts: Sequence[FileFacts], class_names: Sequence[str], *, seed: int = 0
) -> list[Shortcut]:
    """Tries to predict every class, one against the rest, from every property.

    The score of an image is the frequency of the class among images with a similar value in the other folds (patients
    stay together), so a property gains nothing by heart. It is reported from an AUC of 0.65 upwards, when the
    confidence interval (Hanley and McNeil, 1982, counting patients where they are known; Bonferroni's correction over
    all properties and classes that were tried) lies above 0.5.

    Args:
        records: images with labels and patients.
        facts: of the same images, in the same order.
        class_names: in label order.
        seed: of the division into folds.

    Returns:
        At most one entry per property, the best class of each, highest AUC first.
    """
    flags = np.array([[index in r.positive_labels for r in records] for index in range(len(class_names))], dtype=bool)
    if len(class_names) == 2 and not any(isinstance(record.label, list) for record in records):
        flags = flags[1:]  # the other class is the mirror image
    first = len(class_names) - len(flags)
    folds, shrink = _folds(records, flags, seed)
    tested = [place for place, flag in enumerate(flags) if min(flag.sum(), (~flag).sum()) * shrink >= MIN_CASES]
    if not tested:
        return []
    values = {name: [_read(name, f, r) for f, r in zip(facts, records, strict=True)] for name in PROPERTIES}
    labels = ["|".join(class_names[index] for index in record.positive_labels) for record in records]
    # a property that is the label itself, such as the site where sites are the classes, is no news
    values = {name: column for name, column in values.items() if len(set(column)) > 1 and column != labels}
    confidence = 1 - (1 - CONFIDENCE) / max(len(values) * len(tested), 1)
    found = []
    for name, column in values.items():
        cells = [_cells(column, folds != fold) for fold in range(FOLDS)]
        aucs = {place: _auc(_out_of_fold(cells, folds, flags[place]), flags[place]) for place in tested}
        place = max(aucs, key=lambda place: aucs[place])
        auc, flag = aucs[place], flags[place]
        low = lower_bound(auc, int(flag.sum() * shrink), int((~flag).sum() * shrink), confidence)
        if auc >= MIN_AUC and low > 0.5:
            evidence = _evidence(column, flags, class_names, first, place)
            remedy = PROPERTIES[name][2]
            found.append(Shortcut(name, class_names[place + first], round(auc, 4), round(low, 4), evidence, remedy))
    return sorted(found, key=lambda shortcut: (-shortcut.auc, shortcut.name))


def _read(name: str, facts: FileFacts, record: Record) -> Any:
    """Value of a property, None where it is unknown."""
    attribute, axis, _ = PROPERTIES[name]
    value = getattr(record if attribute == "site" else facts, attribute)
    if axis is not None:
        value = value[axis] if value and len(value) > axis else None
    return None if value == "" else value


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    return area_under_roc(torch.from_numpy(scores), torch.from_numpy(positive)) or 0.0


def lower_bound(auc: float, positives: int, negatives: int, confidence: float) -> float:
    """Lower end of the two-sided confidence interval of an AUC (Hanley and McNeil, Radiology 143, 1982).

    Their error shrinks as the AUC grows, which is too hopeful where few images have a high AUC by accident. So it is
    at least that of the Mann-Whitney statistic without any relation.
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    positives, negatives = max(positives, 1), max(negatives, 1)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    error = math.sqrt(max(variance, (positives + negatives + 1) / 12) / (positives * negatives))
    return auc - NormalDist().inv_cdf(0.5 + confidence / 2) * error


def _folds(records: Sequence[Record], flags: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Fold of every record, stratified and with whole patients, and the number of independent cases per image."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        groups[f"patient {record.patient}" if record.patient else f"image {place}"].append(place)
    strata: dict[bytes, list[str]] = defaultdict(list)
    for name, members in groups.items():
        strata[flags[:, members[0]].tobytes()].append(name)
    folds = np.zeros(len(records), dtype=int)
    for stratum, names in sorted(strata.items()):
        random.Random(f"{seed}/{stratum.hex()}").shuffle(names)
        for turn, name in enumerate(names):
            folds[groups[name]] = turn % FOLDS
    return folds, len(groups) / max(len(records), 1)


def _cells(column: Sequence, known: np.ndarray) -> np.ndarray:
    """Cell of each value: equal values share one; many different numbers are divided by quantiles of the known ones."""
    numeric = all(isinstance(value, (int, float)) or value is None for value in column)
    if not numeric or len(set(column)) <= BINS:
        codes: dict = {}
        return np.array([codes.setdefault(value, len(codes)) for value in column])
    numbers = np.array([math.nan if value is None else value for value in column], dtype=float)
    given = numbers[known & ~np.isnan(numbers)]  # none, where all images lie in one fold
    edges = np.unique(np.quantile(given, np.linspace(0, 1, BINS + 1)[1:-1])) if len(given) else np.empty(0)
    return np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers, side="right"))


def _out_of_fold(cells: Sequence[np.ndarray], folds: np.ndarray, flag: np.ndarray) -> np.ndarray:
    """Share of the class in each image's cell, from the other folds, shrunk towards the overall share."""
    scores = np.zeros(len(flag))
    overall = flag.mean()
    for fold, cell in enumerate(cells):
        held_out = folds == fold
        size = np.bincount(cell[~held_out], minlength=cell.max() + 1)
        hits = np.bincount(cell[~held_out], weights=flag[~held_out], minlength=cell.max() + 1)
        scores[held_out] = ((hits + overall) / (size + 1))[cell[held_out]]
    return scores


def _evidence(column: Sequence, flags: np.ndarray, class_names: Sequence[str], first: int, best: int) -> str:
    """The two cells that predict the best class best: "RGBA: 312 images, 93 % noncovid"."""
    cells = _cells(column, np.ones(len(column), dtype=bool))
    flag, overall = flags[best], flags[best].mean()
    surprise = {cell: abs(flag[cells == cell].mean() - overall) for cell in sorted(set(cells.tolist()))}
    weight = {cell: round(float(share * (cells == cell).sum()), 6) for cell, share in surprise.items()}
    parts = []
    for cell in sorted(weight, key=lambda cell: (-weight[cell], -surprise[cell]))[:2]:
        members = cells == cell
        if len(flags) == 1:  # two classes: name the one in the majority
            share = flag[members].mean()
            name, share = (class_names[1], share) if share >= 0.5 else (class_names[0], 1 - share)
        else:
            name, share = class_names[best + first], flag[members].mean()
        inside = [value for value, member in zip(column, members, strict=True) if member]
        parts.append(f"{_words(inside)}: {len(inside)} images, {100 * share:.0f} % {name}")
    return "; ".join(parts)


def _words(values: Sequence) -> str:
    present = Counter(values)
    if len(present) == 1:
        only = next(iter(present))
        return "unknown" if only is None else f"{only:g}" if isinstance(only, float) else str(only)
    numbers = [value for value in present if value is not None]
    return f"{min(numbers):.4g} to {max(numbers):.4g}"
