# SPDX-License-Identifier: Apache-2.0
"""Can the class be told from how a file was stored, without looking at the picture?

A network can see many such properties (the size after which a picture was scaled, the noise of a scanner, the edges
of a format), so a set in which they go with the class rewards learning them instead of the disease. File names are
left out: a network never sees them.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from dual_skd.data.reading.inspection import FileFacts
from dual_skd.data.records.record import Record

FOLDS = 5
BINS = 8  # ranges into which a number is cut; as many quantiles
LEAST_AUC = 0.65
CONFIDENCE = 0.95  # for all properties and classes together
LEAST_OF_CLASS = 10  # patients (or images, where patients are unknown) that a class needs for a verdict

_ACQUISITION = "compare results per site and scanner, and balance the classes within each"
_STORAGE = "store the images of all classes the same way, or show that results hold within one kind"
_SIZE = "bring the images of all classes from one source, or crop them to the same region and size"
_SHAPE = (
    "train with --fit crop, which hides it (stretched images show it by their proportions, padded ones by a margin), "
    "or bring the images of all classes from one source"
)
# The size of a file is none of them: it follows from the picture and, without loss, from what no picture shows.
# property -> (what to read, what to do)
PROPERTIES: dict[str, tuple[Callable[[Any, Record], object], str]] = {
    "mode": (lambda facts, record: facts.mode or None, _STORAGE),
    "bit depth": (lambda facts, record: facts.bits, _STORAGE),
    "format": (lambda facts, record: facts.format or None, _STORAGE),
    "transfer syntax": (lambda facts, record: facts.transfer_syntax or None, _STORAGE),
    "JPEG quality": (lambda facts, record: facts.jpeg_quality, _STORAGE),
    "width": (lambda facts, record: float(facts.shape[0]) if facts.shape else None, _SIZE),
    "height": (lambda facts, record: float(facts.shape[1]) if len(facts.shape) > 1 else None, _SIZE),
    "depth": (lambda facts, record: float(facts.shape[2]) if len(facts.shape) > 2 else None, _SIZE),
    "aspect ratio": (lambda facts, record: facts.aspect, _SHAPE),
    "frames": (lambda facts, record: float(facts.frames) if facts.frames else None, _SIZE),
    "spacing": (lambda facts, record: facts.spacing[0] if facts.spacing else None, _ACQUISITION),
    "slice spacing": (lambda facts, record: facts.spacing[2] if len(facts.spacing or ()) > 2 else None, _ACQUISITION),
    "orientation": (lambda facts, record: facts.orientation or None, _ACQUISITION),
    "modality": (lambda facts, record: facts.modality or None, _ACQUISITION),
    "manufacturer": (lambda facts, record: facts.manufacturer or None, _ACQUISITION),
    "institution": (lambda facts, record: facts.institution or None, _ACQUISITION),
    "site": (lambda facts, record: record.site or None, _ACQUISITION),
}


@dataclass(frozen=True)
class Shortcut:
    """One property from which a class can be told.

    Args:
        property: a key of :data:`PROPERTIES`.
        label: name of the class that it tells best.
        auc: area under the ROC curve, estimated on images (and patients) that the estimate has not seen.
        low: lower end of its confidence interval.
        evidence: the values that tell most, in words.
        remedy: what to do.
    """

    property: str
    label: str
    auc: float
    low: float
    evidence: str
    remedy: str

    @property  # type: ignore[operator] # a field has this name
    def sentence(self) -> str:
        return (
            f"the class can be told from the {self.property} without looking at the image, "
            f"AUC = {self.auc:.2f} ({self.evidence})"
        )


def find_shortcuts(
    records: Sequence[Record], facts: Sequence[FileFacts], class_names: Sequence[str], *, seed: int = 0
) -> list[Shortcut]:
    """Tries every property against every class, one against the rest.

    The score of an image is the frequency of the class among images with a like value in the other folds (patients
    stay together), so nothing that is learnt by heart counts. A property is reported from an AUC of 0.65 upwards,
    when the confidence interval (Hanley and McNeil, 1982, counting patients where they are known; Bonferroni's
    correction over all properties and classes that were tried) lies above 0.5.

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
    values = {name: [read(f, r) for f, r in zip(facts, records, strict=True)] for name, (read, _) in PROPERTIES.items()}
    labels = ["|".join(class_names[index] for index in record.positive_labels) for record in records]
    # a property that is the label itself, such as the site where sites are the classes, is no news
    values = {name: column for name, column in values.items() if len(set(column)) > 1 and column != labels}
    enough = [place for place, flag in enumerate(flags) if _enough(flag, shrink)]
    tests = len(values) * len(enough)
    found = []
    for name, column in values.items():
        cells = [_cells(column, folds != fold) for fold in range(FOLDS)]
        best = None
        for place in enough:
            auc = area_under_curve(_out_of_fold(cells, folds, flags[place]), flags[place])
            if best is None or auc > best[0]:
                best = (auc, place)
        if best is None or best[0] < LEAST_AUC:
            continue
        auc, place = best
        flag = flags[place]
        low = lower_bound(auc, int(flag.sum() * shrink), int((~flag).sum() * shrink), 1 - (1 - CONFIDENCE) / tests)
        if low > 0.5:
            label = class_names[place + first]
            evidence = _evidence(column, flags, class_names, first, place)
            found.append(Shortcut(name, label, round(auc, 4), round(low, 4), evidence, PROPERTIES[name][1]))
    return sorted(found, key=lambda shortcut: (-shortcut.auc, shortcut.property))


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in order, ties counting one half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[place]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def lower_bound(auc: float, positives: int, negatives: int, confidence: float) -> float:
    """Lower end of the two-sided confidence interval of an AUC (Hanley and McNeil, Radiology 143, 1982).

    Their error shrinks as the AUC grows, which is too hopeful where a high AUC is itself an accident of few images:
    it is not taken to be smaller than that of the Mann-Whitney statistic without any relation.
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    positives, negatives = max(positives, 1), max(negatives, 1)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    error = math.sqrt(max(variance, (positives + negatives + 1) / 12) / (positives * negatives))
    return auc - NormalDist().inv_cdf(0.5 + confidence / 2) * error


def _folds(records: Sequence[Record], flags: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Fold of every record, whole patients at a time and stratified, and independent cases per image."""
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


def _enough(flag: np.ndarray, shrink: float) -> bool:
    return min(flag.sum(), (~flag).sum()) * shrink >= LEAST_OF_CLASS


def _cells(column: Sequence, known: np.ndarray) -> np.ndarray:
    """Which values count as alike: equal ones, or the same quantile of the known ones for many different numbers."""
    numeric = all(isinstance(value, (int, float)) or value is None for value in column)
    if not numeric or len(set(column)) <= BINS:
        codes: dict = {}
        return np.array([codes.setdefault(value, len(codes)) for value in column])
    numbers = np.array([math.nan if value is None else value for value in column], dtype=float)
    given = numbers[known & ~np.isnan(numbers)]  # none, where all images lie in one fold
    edges = np.unique(np.quantile(given, np.linspace(0, 1, BINS + 1)[1:-1])) if len(given) else np.empty(0)
    return np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers, side="right"))


def _out_of_fold(cells: Sequence[np.ndarray], folds: np.ndarray, flag: np.ndarray) -> np.ndarray:
    """Share of the class in each image's cell, from the other folds, drawn towards the share overall."""
    scores = np.zeros(len(flag))
    overall = flag.mean()
    for fold, cell in enumerate(cells):
        held_out = folds == fold
        size = np.bincount(cell[~held_out], minlength=cell.max() + 1)
        hits = np.bincount(cell[~held_out], weights=flag[~held_out], minlength=cell.max() + 1)
        scores[held_out] = ((hits + overall) / (size + 1))[cell[held_out]]
    return scores


def _evidence(column: Sequence, flags: np.ndarray, class_names: Sequence[str], first: int, best: int) -> str:
    """The two cells that tell most about the best class: "RGBA: 312 images, 93 % noncovid"."""
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
