# SPDX-License-Identifier: Apache-2.0
"""What a model expects of an image: noted in training, kept in the model's file, compared at every use.

An image is *refused* where an answer would mean nothing:

* unit: the model's window is in Hounsfield units and the image isn't (a screenshot, an export as PNG), or, without a
  header that says so, shows no air, where all images of the sample did; a window in another unit, or of the files
  themselves, meets a kind of file that training didn't have (grey pictures, DICOM, NIfTI and NumPy count as four),
* modality: another one than those of training. Projections (CR, DX, DR, RG) count as one; where training or the image
  has none, nothing is known and nothing refused,
* colour: the channels really differ, and those of no training image did.

The log has a *remark*, once per kind, where an image may be foreign: a side or the ratio of the sides is more than 1.5
times outside the range of training, slices lie in another plane, Hounsfield units are new, colour is absent.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from dual_skd.data.reading.facts import ImageFacts, facts_in, facts_of
from dual_skd.errors import InputError, choose

if TYPE_CHECKING:
    from monai.data import MetaTensor

logger = logging.getLogger(__name__)

UNEXPECTED_INPUT = {"refuse": False, "accept": True}
SIZE_FACTOR = 1.5  # outside the range of training, from which size and aspect ratio are remarked on
PROJECTIONS = ("CR", "DX", "DR", "RG")  # X-ray, by detectors of several ages
UNSTATED = ("", "OT")  # modalities that say nothing
PICTURES = ("PNG", "JPEG", "BMP", "TIFF", "NPZ")
REMEDY = "give images like those of training, or take it all the same with --unexpected-input accept"
MISSED_BY_SAMPLES = ("air", "modality", "colour")  # what a sample of the training images may have missed

Window = str | Sequence[float] | None


@dataclass(frozen=True)
class InputExpectation:
    """What the training images have in common; None or nothing for what isn't known or differs among them.

    Args:
        images: how many of them were looked at; 0 in training itself, which compares with nothing but a stated unit.
        hounsfield: whether their values are Hounsfield units.
        modalities: of DICOM, "" among them where one states none.
        formats: kinds of their files: "picture", "DICOM", "NIfTI", "NPY".
        colour: whether they are in colour.
        planes: of DICOM slices, "" among them where one isn't known.
        sizes: least and largest of their longer sides, pixels.
        aspect_ratios: least and largest of columns / rows.
    """

    images: int = 0
    hounsfield: bool | None = None
    modalities: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    colour: bool | None = None
    planes: tuple[str, ...] = ()
    sizes: tuple[float, ...] = ()
    aspect_ratios: tuple[float, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> InputExpectation:
        """From what :meth:`as_dict` gave, also by way of JSON."""
        values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        return cls(**values)

    def refusals(self, facts: ImageFacts, window: Window) -> dict[str, str]:
        """What makes an answer meaningless, by kind of difference.

        Args:
            facts: of the image.
            window: that the model scales values by, see :func:`dual_skd.data.choose_window`.
        """
        found = self._wrong_unit(facts, window)
        modality = modality_of(facts)
        if modality and self.modalities and "" not in self.modalities and modality not in self.modalities:
            found["modality"] = f"its modality is {facts.modality}, training had {', '.join(self.modalities)} only"
        if facts.colour and self.colour is False:
            found["colour"] = "it is in colour, training had grey images only"
        return found

    def remarks(self, facts: ImageFacts) -> dict[str, str]:
        """What may make an answer worse, by kind of difference."""
        found = {}
        columns, rows = facts.size
        measured = (("size", max(columns, rows), self.sizes), ("aspect ratio", columns / rows, self.aspect_ratios))
        for name, value, known in measured:
            if known and not known[0] / SIZE_FACTOR <= value <= known[1] * SIZE_FACTOR:
                found[name] = f"its {name} is {value:.4g} ({columns} x {rows}), in training {_range(known)}"
        if facts.plane and self.planes and not {"", facts.plane} & set(self.planes):
            found["plane"] = f"its slices are {facts.plane}, in training {' or '.join(self.planes)}"
        if facts.hounsfield and self.hounsfield is False:
            found["hounsfield"] = "its values are Hounsfield units, those of training weren't"
        if self.colour and not facts.colour:
            found["grey"] = "it is grey, training had images in colour only"
        return found

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _wrong_unit(self, facts: ImageFacts, window: Window) -> dict[str, str]:
        if window in (None, "percentile", "zscore"):
            return {}
        if self.hounsfield and window != "file":
            if facts.hounsfield is False:
                return {"unit": "its values aren't Hounsfield units, which the intensity window is for"}
            if facts.hounsfield is None and self.images:
                return {
                    "air": "nothing says that its values are Hounsfield units, and it shows no air, as training did"
                }
            return {}
        kind = kind_of(facts.format)
        if kind and self.formats and kind not in self.formats:
            return {"unit": f"it is a {kind} file, and the window is for values of {' or '.join(self.formats)}"}
        return {}


class ExpectedInput:
    """Step of :func:`dual_skd.data.image_transforms`, right after reading: compares an image with what is expected.

    Args:
        expected: fields of :class:`InputExpectation`.
        window: of the model.
        unexpected_input: "refuse", or "accept", which takes such images all the same and logs it.

    Raises:
        InputError: another word; on use, for a refused image, naming its file.
    """

    def __init__(self, expected: Mapping[str, Any], window: Window, unexpected_input: str = "refuse") -> None:
        self.accept = choose(UNEXPECTED_INPUT, unexpected_input, "unexpected_input")
        self.expected = InputExpectation.of(expected)
        self.window = window
        self._logged: set[str] = set()

    def __call__(self, image: MetaTensor) -> MetaTensor:
        self.judge(image.numpy(), image.meta)
        return image

    def judge(self, image: np.ndarray, meta: Mapping[str, Any]) -> None:
        """Compares an image (C, W, H) or (C, X, Y, Z), by its values and the meta data of its file."""
        facts = facts_in(image, meta)
        refusals = self.expected.refusals(facts, self.window)
        if refusals and not self.accept:
            found = "; ".join(refusals.values())
            if self.expected.images:
                raise InputError(f"{facts.image} isn't what was trained on: {found}; {REMEDY}.")
            raise InputError(
                f"{facts.image} isn't like the other images: {found}; leave it out, or --window percentile."
            )
        for kind, words in (refusals | self.expected.remarks(facts)).items():
            if kind not in self._logged:
                self._logged.add(kind)
                logger.warning("%s differs from what was trained on: %s; it is used all the same.", facts.image, words)


def describe(facts: Sequence[ImageFacts]) -> InputExpectation:
    """The :class:`InputExpectation` of a model, by a sample of its training images; mixtures are logged.

    Args:
        facts: see :func:`~dual_skd.data.reading.facts.look_at_sample`.
    """
    for sentence in mixtures(facts):
        logger.warning(
            "The training images aren't all of one kind. Of %d that were looked at, %s; `dual-skd check` "
            "lists all such files.", len(facts), sentence,
        )  # fmt: skip
    ratios = [columns / rows for columns, rows in (one.size for one in facts)]
    longest = [max(one.size) for one in facts]
    return InputExpectation(
        images=len(facts),
        hounsfield=_common({bool(one.hounsfield) for one in facts}),
        modalities=tuple(sorted({modality_of(one) for one in facts})),
        formats=tuple(sorted({kind_of(one.format) for one in facts})),
        colour=_common({one.colour for one in facts}),
        planes=tuple(sorted({one.plane for one in facts})),
        sizes=(min(longest), max(longest)) if facts else (),
        aspect_ratios=(min(ratios), max(ratios)) if facts else (),
    )


def mixtures(facts: Sequence[ImageFacts]) -> list[str]:
    """Sentences on images of several units, modalities or kinds of files, with counts and an example of the rarest."""
    found = []
    for words, read in (
        ("{} are in {}", lambda one: "Hounsfield units" if one.hounsfield else "another unit"),
        ("{} are of modality {}", modality_of),
        ("{} are of the kind {}", lambda one: kind_of(one.format)),
    ):
        counts = sorted(Counter(value for one in facts if (value := read(one))).items(), key=lambda one: (-one[1], one))
        if len(counts) > 1:
            parts = " and ".join(words.format(count, value) for value, count in counts)
            example = next(one.image for one in facts if read(one) == counts[-1][0])
            found.append(f"{parts}, for example {example}")
    return found


def refuse_unexpected(
    images: Sequence[str], preprocessing: Mapping[str, Any], unexpected_input: str = "refuse", *, own: bool = False
) -> dict[str, Any]:
    """Compares all images of an evaluation with what the model expects, before anything is measured.

    Args:
        images: locators.
        preprocessing: of the model, with its "expected"; without one, as in older files, nothing is compared.
        unexpected_input: "refuse" or "accept".
        own: whether these are of the data set that the model was trained on. What a sample of its training images may
            have missed (modality, colour, one without air) is then logged, and not refused.

    Returns:
        entries for ``metrics.json``: nothing, or with "accept" the word and how many images would have been refused.

    Raises:
        InputError: images are refused, with their number and an example.
    """
    accept = choose(UNEXPECTED_INPUT, unexpected_input, "unexpected_input")
    expected = preprocessing.get("expected")
    if not expected:
        return {}
    judge = InputExpectation.of(expected)
    look = partial(facts_of, spatial_dims=preprocessing.get("spatial_dims", 2))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked_at = list(pool.map(look, images))
    refused = {one.image: found for one in looked_at if (found := judge.refusals(one, preprocessing.get("window")))}
    fatal = {image: kinds for image, kinds in refused.items() if not (own and set(kinds) <= set(MISSED_BY_SAMPLES))}
    differences = [*refused.values(), *(judge.remarks(one) for one in looked_at)]
    counts = Counter(chain.from_iterable(differences))
    if fatal and not accept:
        first = next(iter(fatal))
        raise InputError(
            f"{len(fatal)} of {len(images)} images aren't what this model was trained on, for example {first}: "
            f"{'; '.join(fatal[first].values())}; {REMEDY}."
        )
    for kind, count in counts.items():
        words = next(found[kind] for found in differences if kind in found)
        logger.warning("%d of %d images differ from those of training, for example: %s.", count, len(images), words)
    return {"unexpected_input": unexpected_input, "unexpected_images": len(refused)} if accept else {}


def modality_of(facts: ImageFacts) -> str:
    """The modality that counts: "X-ray" for projections, "" where none is stated."""
    if facts.modality in UNSTATED:
        return ""
    return "X-ray" if facts.modality in PROJECTIONS else facts.modality


def kind_of(name: str) -> str:
    """What kind of values the format called ``name`` holds."""
    return "picture" if name in PICTURES else name


def _common(values: set[bool]) -> bool | None:
    return values.pop() if len(values) == 1 else None


def _range(known: Sequence[float]) -> str:
    return f"{known[0]:.4g} to {known[1]:.4g}"
