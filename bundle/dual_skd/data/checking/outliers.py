# SPDX-License-Identifier: Apache-2.0
"""Finds images that differ from the rest of their set: in size, spacing, orientation, modality, brightness, name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dual_skd.data.reading.expectation import kind_of
from dual_skd.data.reading.formats import format_of_suffix
from dual_skd.data.reading.inspection import FileFacts
from dual_skd.data.reading.locators import path_of

MAX_Z_SCORE = 3.5  # robust z-score from which a value is an outlier (Iglewicz and Hoaglin, 1993)
MIN_SPREAD = 0.05  # least relative spread that is assumed, so that a set of equal values has outliers too
MINORITY = 0.05  # largest share of a set that outliers have; what is more frequent is a property of the set
MIN_IMAGES = 10  # with fewer images nothing is called usual
INVERTED_CORRELATION = -0.25  # with the average image, below which brightness is called inverted
MIN_MEDIAN_CORRELATION = 0.5  # with the average image, without which a set has no inverted images
SATURATED_SHARE = 0.4  # of the pixels, at the highest value
STRETCH_FACTOR = 1.1  # between two axes, from which a change of proportions is worth a note
UNIFORM_SHARE = 0.98  # of the pixels, at one value
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_")  # of DICOM PS3.3 C.7.6.3.1.2


@dataclass(frozen=True)
class Oddity:
    """An image that differs from the others: its locator, the kind of finding, the difference in words."""

    image: str
    kind: str
    detail: str


def stretching(facts: Sequence[FileFacts]) -> str:
    """Note on how much stretching to a square changes proportions; "" where it hardly does."""
    factors = np.array([max(one.aspect, 1 / one.aspect) for one in facts if one.aspect])
    if _is_minority((factors > STRETCH_FACTOR).sum(), len(factors)):
        return ""
    return (
        "the images aren't square; training keeps their shape; --fit stretch changes the proportions "
        f"of what they show by a factor of {np.median(factors):.2f} (median; at most {factors.max():.2f})"
    )


def find_oddities(facts: Sequence[FileFacts]) -> list[Oddity]:
    """Compares the images of a set with one another and returns the outliers.

    Args:
        facts: of all images; those with a ``problem`` are ignored.
    """
    usable = [one for one in facts if not one.problem]
    return [
        *_wrong_suffixes(usable),
        *_numbers(usable, "shape", "size", "pixels"),
        *_numbers(usable, "spacing", "spacing", "mm"),
        *_missing_spacings(usable),
        *_orientations(usable),
        *_modalities(usable),
        *_meanings(usable),
        *_inverted(usable),
        *(Oddity(one.image, kind, detail) for one in usable for kind, detail in _of_one(one)),
    ]


def unusual(values: np.ndarray) -> np.ndarray:
    """Marks the rows of (N, axes) positive numbers that lie far from the median, on a logarithmic scale.

    Returns:
        (N,) bool, all False where more than a minority would be marked or the set is small.
    """
    if len(values) < MIN_IMAGES:
        return np.zeros(len(values), dtype=bool)
    logs = np.log(np.maximum(values, 1e-9))
    distance = np.abs(logs - np.median(logs, axis=0))
    spread = np.maximum(1.4826 * np.median(distance, axis=0), MIN_SPREAD)  # 1.4826 MAD estimates a standard deviation
    marked = (distance > MAX_Z_SCORE * spread).any(axis=1)
    return marked & _is_minority(marked.sum(), len(values))


def _is_minority(count: int, total: int) -> bool:
    return count <= max(MINORITY * total, 1)


def _wrong_suffixes(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    seen = set()  # a file with several frames counts once
    for one in facts:
        path = path_of(one.image)
        announced = format_of_suffix(path)
        if announced and one.format and announced != one.format and path.is_file() and path not in seen:
            seen.add(path)
            yield Oddity(one.image, "wrong_suffix", f"the content is {one.format}, the name ends with {path.suffix}")


def _numbers(facts: Sequence[FileFacts], field: str, kind: str, unit: str) -> Iterator[Oddity]:
    known = [one for one in facts if getattr(one, field)]
    if len({len(getattr(one, field)) for one in known}) != 1:
        return
    values = np.array([getattr(one, field) for one in known], dtype=float)
    middle = " x ".join(f"{value:g}" for value in np.median(values, axis=0))
    for place in np.flatnonzero(unusual(values)).tolist():
        found = " x ".join(f"{value:g}" for value in values[place])
        yield Oddity(known[place].image, kind, f"{found} {unit}, where {middle} is usual")


def _missing_spacings(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    missing = [one for one in facts if not one.spacing]
    if len(facts) >= MIN_IMAGES and _is_minority(len(missing), len(facts)):
        for one in missing:
            yield Oddity(one.image, "spacing", "the file gives no pixel spacing, the others do")


def _orientations(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    counts = Counter(one.orientation for one in facts if one.orientation)
    if counts.total() < MIN_IMAGES:
        return
    usual = counts.most_common(1)[0][0]
    for one in facts:
        if one.orientation and _is_minority(counts[one.orientation], counts.total()):
            yield Oddity(one.image, "orientation", f"axes run {one.orientation}, where {usual} is usual")


def _modalities(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    found = [(one.image, one.modality) for one in facts if one.modality]
    yield from _unlike_most(found, "mixed_modality", "the modality is {}, where {} is usual")


def _meanings(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    """Images of the usual modality whose values have another unit, or come from another kind of file, than most."""
    modalities = Counter(one.modality for one in facts if one.modality)
    usual = modalities.most_common(1)[0][0] if modalities else ""
    found = {
        one.image: "Hounsfield units" if one.hounsfield else f"values of {kind_of(one.format)} files without a unit"
        for one in facts
        if one.modality in ("", usual)
    }
    yield from _unlike_most(found.items(), "mixed_values", "it holds {}, where {} are usual")


def _unlike_most(values: Iterable[tuple[str, str]], kind: str, sentence: str) -> Iterator[Oddity]:
    """Images, given as (image, value), whose value isn't the most frequent one."""
    counts = Counter(value for _, value in values)
    for image, value in values:
        usual = counts.most_common(1)[0][0]
        if value != usual:
            yield Oddity(image, kind, sentence.format(value, usual))


def _inverted(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    """Images whose bright and dark regions are where the others have dark and bright ones.

    A wrong PhotometricInterpretation or an inverted export looks like this. Images of one body part correlate strongly
    with their average (median 0.6 to 0.96 in the sets that we looked at), inverted ones with its negative.
    """
    facts = [one for one in facts if one.coarse]
    if len(facts) < MIN_IMAGES:
        return
    pictures = np.stack([np.frombuffer(one.coarse, dtype=np.uint8) for one in facts]).astype(np.float32)
    pictures -= pictures.mean(axis=1, keepdims=True)
    pictures /= np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-6)
    average = pictures.mean(axis=0)
    correlation = pictures @ (average / max(float(np.linalg.norm(average)), 1e-6))
    if np.median(correlation) < MIN_MEDIAN_CORRELATION:
        return
    for place in np.flatnonzero(correlation < INVERTED_CORRELATION).tolist():
        found = f"(correlation {correlation[place]:.2f} with the average)"
        yield Oddity(facts[place].image, "inverted", f"bright and dark lie the other way round than usual {found}")


def _of_one(facts: FileFacts) -> Iterator[tuple[str, str]]:
    """Kind and words of what would be odd in any set."""
    if facts.format == "DICOM" and not facts.photometric.startswith(PHOTOMETRIC):
        found = facts.photometric or "nothing"
        detail = f"the header gives {found} as photometric interpretation, so dark and bright may be exchanged"
        yield "wrong_photometric", detail
    commonest, saturated = facts.commonest or 0.0, facts.saturated or 0.0
    if commonest > UNIFORM_SHARE:
        yield "nearly_constant", f"{100 * commonest:.1f} % of the pixels have one value"
    elif saturated > SATURATED_SHARE:
        yield "saturated", f"{100 * saturated:.0f} % of the pixels have the highest value"
    if facts.series_problems:
        yield "series", "; ".join(facts.series_problems)
    if facts.mosaic:
        yield "mosaic", "the slices of a volume lie side by side in it, and count as one picture"
