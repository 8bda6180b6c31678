# SPDX-License-Identifier: Apache-2.0
"""Images that differ from the rest of their set: in size, spacing, orientation, modality, brightness, name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dual_skd.data.reading.expectation import kind_of
from dual_skd.data.reading.formats import format_of_suffix
from dual_skd.data.reading.inspection import FileFacts
from dual_skd.data.reading.locators import path_of

DEVIATIONS = 3.5  # robust z-score from which a value is an outlier (Iglewicz and Hoaglin, 1993)
SPREAD = 0.05  # least relative spread that is assumed, so that a set of equal values has outliers too
MINORITY = 0.05  # what more of the images have than this is a property of the set, not an outlier
FEWEST = 10  # with fewer images nothing is called usual
UNLIKE = -0.25  # correlation with the average image below which brightness is called inverted
ALIKE = 0.5  # median of that correlation which a set needs for such a verdict
SATURATED = 0.4  # share of pixels at the highest value
STRETCHED = 1.1  # factor between two axes from which a change of proportions is told
UNIFORM = 0.98  # share of pixels at one value
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_")  # of DICOM PS3.3 C.7.6.3.1.2


@dataclass(frozen=True)
class Oddity:
    """One image that is unlike the others: its locator, the kind of finding, and the difference in words."""

    image: str
    kind: str
    detail: str


def stretching(facts: Sequence[FileFacts]) -> str:
    """How much stretching to a square would change the shape of what the images show; "" where it would hardly."""
    factors = np.array([max(one.aspect, 1 / one.aspect) for one in facts if one.aspect])
    if (factors > STRETCHED).sum() <= max(MINORITY * len(factors), 1):
        return ""
    return (
        "the images aren't square; training keeps their shape unless told --fit stretch, which changes the proportions "
        f"of what they show by a factor of {np.median(factors):.2f} (median; at most {factors.max():.2f})"
    )


def find_oddities(facts: Sequence[FileFacts]) -> list[Oddity]:
    """Compares the images of a set with one another and returns what sticks out.

    Args:
        facts: of all images; those with a ``problem`` are left aside.
    """
    usable = [one for one in facts if not one.problem]
    searches = (
        _names, _sizes, _spacings, _orientations, _modalities, _meanings, _photometry, _brightness, _series, _mosaics,
    )  # fmt: skip
    return [oddity for search in searches for oddity in search(usable)]


def unusual(values: np.ndarray) -> np.ndarray:
    """Tells which rows of (N, axes) positive numbers lie far from the median, on a logarithmic scale.

    Returns:
        (N,) bool, all False where more than a minority would be marked or the set is small.
    """
    if len(values) < FEWEST:
        return np.zeros(len(values), dtype=bool)
    logs = np.log(np.maximum(values, 1e-9))
    distance = np.abs(logs - np.median(logs, axis=0))
    spread = np.maximum(1.4826 * np.median(distance, axis=0), SPREAD)  # 1.4826 MAD estimates a standard deviation
    marked = (distance > DEVIATIONS * spread).any(axis=1)
    return marked if marked.sum() <= max(MINORITY * len(values), 1) else np.zeros(len(values), dtype=bool)


def _names(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    seen = set()
    for one in facts:
        path = path_of(one.image)
        announced = format_of_suffix(path)
        if announced and one.format and announced != one.format and path.is_file() and path not in seen:
            seen.add(path)
            yield Oddity(one.image, "wrong_suffix", f"the content is {one.format}, the name ends with {path.suffix}")


def _sizes(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    yield from _numbers([one for one in facts if one.shape], "size", "pixels", lambda one: one.shape)


def _spacings(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    known = [one for one in facts if one.spacing]
    yield from _numbers(known, "spacing", "mm", lambda one: one.spacing)
    unknown = [one for one in facts if not one.spacing]
    if len(facts) >= FEWEST and len(unknown) <= max(MINORITY * len(facts), 1):
        for one in unknown:
            yield Oddity(one.image, "spacing", "the file gives no pixel spacing, the others do")


def _numbers(
    facts: Sequence[FileFacts], kind: str, unit: str, read: Callable[[FileFacts], tuple[float, ...] | None]
) -> Iterator[Oddity]:
    read_from = [read(one) or () for one in facts]
    if len({len(numbers) for numbers in read_from}) != 1:
        return
    values = np.array(read_from, dtype=float)
    middle = " x ".join(f"{value:g}" for value in np.median(values, axis=0))
    for place in np.flatnonzero(unusual(values)).tolist():
        found = " x ".join(f"{value:g}" for value in values[place])
        yield Oddity(facts[place].image, kind, f"{found} {unit}, where {middle} is usual")


def _orientations(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    yield from _minorities(facts, "orientation", lambda one: one.orientation, "axes run {}, where {} is usual")


def _modalities(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    counts = Counter(one.modality for one in facts if one.modality)
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        for one in facts:
            if one.modality and one.modality != usual:
                detail = f"the modality is {one.modality}, where {usual} is usual"
                yield Oddity(one.image, "mixed_modality", detail)


def _meanings(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    """Among images of one modality those in another unit, or of another kind of file, than most."""
    modalities = Counter(one.modality for one in facts if one.modality)
    usual_modality = modalities.most_common(1)[0][0] if modalities else ""
    meaning = {
        one.image: "Hounsfield units" if one.hounsfield else f"values of {kind_of(one.format)} files without a unit"
        for one in facts
        if one.modality in ("", usual_modality)
    }
    usual = Counter(meaning.values()).most_common(1)
    for image, found in meaning.items():
        if found != usual[0][0]:
            yield Oddity(image, "mixed_values", f"it holds {found}, where {usual[0][0]} are usual")


def _minorities(
    facts: Sequence[FileFacts], kind: str, read: Callable[[FileFacts], str], words: str
) -> Iterator[Oddity]:
    counts = Counter(value for one in facts if (value := read(one)))
    if sum(counts.values()) < FEWEST:
        return
    usual = counts.most_common(1)[0][0]
    rare = {value for value, count in counts.items() if count <= max(MINORITY * counts.total(), 1)}
    for one in facts:
        if read(one) in rare:
            yield Oddity(one.image, kind, words.format(read(one), usual))


def _photometry(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    for one in facts:
        if one.format == "DICOM" and not one.photometric.startswith(PHOTOMETRIC):
            found = one.photometric or "nothing"
            detail = f"the header gives {found} as photometric interpretation, so dark and bright may be exchanged"
            yield Oddity(one.image, "wrong_photometric", detail)
    yield from _inverted([one for one in facts if one.coarse])


def _inverted(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    """Images whose bright and dark regions are where the others have dark and bright ones.

    That is what a wrong PhotometricInterpretation looks like, or an inverted export. Images of one body part resemble
    their average strongly (median correlation 0.6 to 0.96 in the sets that we looked at), inverted ones its negative.
    """
    if len(facts) < FEWEST:
        return
    pictures = np.stack([np.frombuffer(one.coarse, dtype=np.uint8) for one in facts]).astype(np.float32)
    pictures -= pictures.mean(axis=1, keepdims=True)
    pictures /= np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-6)
    average = pictures.mean(axis=0)
    alike = pictures @ (average / max(float(np.linalg.norm(average)), 1e-6))
    if np.median(alike) < ALIKE:
        return
    for place in np.flatnonzero(alike < UNLIKE).tolist():
        detail = f"bright and dark lie the other way round than usual (correlation {alike[place]:.2f} with the average)"
        yield Oddity(facts[place].image, "inverted", detail)


def _brightness(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    for one in facts:
        if one.commonest is not None and one.commonest > UNIFORM:
            yield Oddity(one.image, "nearly_constant", f"{100 * one.commonest:.1f} % of the pixels have one value")
        elif one.saturated is not None and one.saturated > SATURATED:
            yield Oddity(one.image, "saturated", f"{100 * one.saturated:.0f} % of the pixels have the highest value")


def _series(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    for one in facts:
        if one.series_problems:
            yield Oddity(one.image, "series", "; ".join(one.series_problems))


def _mosaics(facts: Sequence[FileFacts]) -> Iterator[Oddity]:
    for one in facts:
        if one.mosaic:
            yield Oddity(one.image, "mosaic", "the slices of a volume lie side by side in it, and count as one picture")
