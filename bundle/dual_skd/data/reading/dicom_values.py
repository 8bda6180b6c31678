# SPDX-License-Identifier: Apache-2.0
"""Values of DICOM frames: stored bits, Modality LUT or rescale, palette, VOI LUT or window, padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian

from dual_skd.data.reading.dicom_decoders import decoded, decoders_for, may_overshoot
from dual_skd.data.reading.dicom_file import first_item, groups_first, number, numbers, syntax_of
from dual_skd.data.reading.dicom_header import in_hounsfield
from dual_skd.errors import InputError

COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
GREYS = ("MONOCHROME1", "MONOCHROME2")

_PALETTES = tuple(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue", "Alpha"))
_PALETTE_TAGS = (
    "RedPaletteColorLookupTableDescriptor",
    *_PALETTES,
    *(f"Segmented{keyword}" for keyword in _PALETTES),
    "PixelPresentation",
)
_VOI_TAGS = ("PhotometricInterpretation", "BitsStored", "BitsAllocated", "PixelRepresentation")
_WINDOW_TAGS = ("WindowCenter", "WindowWidth")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def values_of_frames(
    dataset: Dataset, path: str | Path, indices: Sequence[int], voi: Dataset | None
) -> Iterator[np.ndarray]:
    """Decoded frames (rows, columns[, 3]) in float32, after the VOI LUT or window of ``voi``.

    Raises:
        InputError: the file states no known colours, nothing can decode it, or its bits contradict each other.
    """
    plugins = decoders_for(dataset, path)
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    if photometric not in GREYS + COLOURS:
        raise InputError(
            f"Expected a grey or RGB image, found PhotometricInterpretation {photometric!r} in {path}; set it to "
            "MONOCHROME2, MONOCHROME1 or RGB after a look at the image, or leave it out."
        )
    samples, expected = number(dataset, "SamplesPerPixel"), 1 if photometric in (*GREYS, "PALETTE COLOR") else 3
    if samples not in (None, expected):
        raise InputError(
            f"Expected {expected} samples per pixel of a {photometric} image, found SamplesPerPixel {samples:g} in "
            f"{path}: its header contradicts itself; correct one of the two, or leave it out."
        )
    palette = _palette_of(dataset) if photometric == "PALETTE COLOR" else None
    for index, frame in zip(indices, decoded(dataset, path, plugins, indices), strict=True):
        stored = _stored_values(frame, dataset, path)
        if palette is not None:
            yield apply_color_lut(stored, palette).astype(np.float32)
            continue
        if photometric in COLOURS:
            yield stored.astype(np.float32)
            continue
        rescale, table = _rescale_of(dataset, index), "ModalityLUTSequence"
        if table in rescale:  # a new element: the old one is the file's
            rescale[table] = DataElement(table, "SQ", [_with_words(dataset, first_item(rescale, table))])
        values = apply_modality_lut(stored, rescale).astype(np.float32)
        _fill_padding(values, dataset, stored)
        if voi is not None:
            whole = np.rint(values).astype(np.int32) if "VOILUTSequence" in voi else values  # places in a table
            values = apply_voi_lut(whole, voi).astype(np.float32)
        yield values


# -------------------------------------------------------------------------------------------------------------- bits


def _stored_values(frame: np.ndarray, dataset: Dataset, path: str | Path) -> np.ndarray:
    """The BitsStored bits that end with HighBit, without what others hold, such as an overlay (PS3.5, 8.1.1).

    Old devices stored values in the upper bits of a word. HighBit says so, and is often wrong, so that the bits must
    agree: values are shifted where nothing lies below them, and stay where nothing lies above them.
    """
    bits, width = int(number(dataset, "BitsStored") or 0), 8 * frame.itemsize
    if frame.dtype.kind == "f" or not 0 < bits <= width:
        return frame
    stated = number(dataset, "HighBit")
    high = bits - 1 if stated is None else int(stated)
    if high == bits - 1 and bits < width and may_overshoot(dataset):
        signed = frame.dtype.kind == "i"
        return frame.clip(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1)
    lowest = _field(frame, 0, bits)
    if high == bits - 1 or high >= width:
        return lowest
    if high >= bits:
        below = high + 1 - bits
        if not (frame & (2**below - 1)).any():
            return _field(frame, below, bits)
        if np.array_equal(lowest, frame):
            return frame
    elif high >= 0 and np.array_equal(lowest, _field(frame, 0, high + 1)):
        return lowest
    raise InputError(
        f"{path} states {bits} bits of which the highest is bit {high}, and its pixels use others, too; correct "
        "BitsStored (0028,0101) and HighBit (0028,0102), or leave it out."
    )


def _field(frame: np.ndarray, lowest: int, bits: int) -> np.ndarray:
    """Some bits of every value as a number, of signed values with their sign."""
    width = 8 * frame.itemsize
    return frame if bits == width else (frame << (width - bits - lowest)) >> (width - bits)


# ------------------------------------------------------------------------------------------------ tables and windows


def _palette_of(dataset: Dataset) -> Dataset:
    """The palette of a file, in the byte order that pydicom looks it up in."""
    palette = _part_of(dataset, dataset, _PALETTE_TAGS)
    if syntax_of(dataset) == ExplicitVRBigEndian:
        for keyword in _PALETTES:
            if keyword in palette:
                words = np.frombuffer(palette[keyword].value, "u2").byteswap()
                palette[keyword] = DataElement(keyword, "OW", words.tobytes())
    return palette


def _part_of(dataset: Dataset, holder: Dataset, keywords: Sequence[str]) -> Dataset:
    """Some elements of a file or of an item in it, which may be exchanged without any change of the file's.

    They keep the file's meta information: pydicom decodes tables of words by its byte order.
    """
    part = Dataset()
    part.file_meta = dataset.file_meta
    for keyword in keywords:
        if keyword in holder:
            part[keyword] = holder[keyword]
    return part


def _has_table(dataset: Dataset, keyword: str) -> bool:
    """Whether a sequence holds a table; some exports leave an item without one."""
    item = first_item(dataset, keyword)
    return numbers(item, "LUTDescriptor", 3) is not None and bool(item.get("LUTData"))


def _rescale_of(dataset: Dataset, index: int) -> Dataset:
    """The Modality LUT or rescale of a frame.

    Where one of slope and intercept is missing it is 1 or 0; pydicom would apply neither.
    """
    for group in groups_first(dataset, "PixelValueTransformationSequence", index):
        if _has_table(group, "ModalityLUTSequence"):
            return _part_of(dataset, group, ("ModalityLUTSequence",))
        given = [keyword for keyword in ("RescaleSlope", "RescaleIntercept") if group.get(keyword) not in (None, "")]
        if given:
            rescale = Dataset()
            rescale.RescaleSlope, rescale.RescaleIntercept = 1, 0
            rescale.update(_part_of(dataset, group, given))
            return rescale
    return Dataset()


def voi_of(dataset: Dataset, index: int, path: str | Path) -> Dataset:
    """A data set with the VOI LUT or window of a frame, and what its application depends on.

    Raises:
        InputError: the file has none, or none that can be applied.
    """
    fault = ""
    for group in groups_first(dataset, "FrameVOILUTSequence", index):
        has_table = _has_table(group, "VOILUTSequence")
        function, why_not = _window_function(group)
        fault = fault or why_not
        if not has_table and not function:
            continue
        voi = _part_of(dataset, dataset, _VOI_TAGS)
        voi.update(_rescale_of(dataset, index))
        if has_table:
            voi.VOILUTSequence = [_with_words(dataset, first_item(group, "VOILUTSequence"))]
        else:
            voi.update(_part_of(dataset, group, _WINDOW_TAGS))
            voi.VOILUTFunction = function
        return voi
    raise InputError(
        f"{path} has no VOI LUT and no window to apply{fault}; set voi_lut false, or window by centre and width."
    )


def _window_function(group: Dataset) -> tuple[str, str]:
    """The function of the first window, "" where there is none or it can't be applied, and then the reason.

    A linear window is 1 wide at least, others more than 0 (PS3.3, C.11.2.1.2 and C.11.2.1.3).
    """
    function = str(group.get("VOILUTFunction") or "LINEAR").upper()
    try:
        stated = [group.get(keyword) for keyword in _WINDOW_TAGS]
        if None in stated or "" in stated:
            return "", ""
        centre, width = (float(one[0] if isinstance(one, MultiValue) else one) for one in stated)
    except ValueError:
        return "", " (its window is no number)"
    if function not in _FUNCTIONS:
        return "", f" (its window has the unknown function {function})"
    if not isfinite(centre) or not (width >= 1 if function == "LINEAR" else width > 0) or not isfinite(width):
        return "", f" (its window is {width:g} wide, with the centre {centre:g})"
    return function, ""


def _with_words(dataset: Dataset, table: Dataset) -> Dataset:
    """A table as pydicom applies it right: VOI LUTs of eight bits and Modality LUTs of twelve it would not."""
    words = _part_of(dataset, table, ("LUTDescriptor", "LUTData"))
    entries, first, depth = words.LUTDescriptor
    words["LUTDescriptor"] = DataElement(
        "LUTDescriptor", table["LUTDescriptor"].VR, [entries, first, 16 if 8 <= depth <= 16 else depth]
    )
    return words


def _fill_padding(values: np.ndarray, dataset: Dataset, stored: np.ndarray) -> None:
    """Gives padding (PS3.3, C.7.5.1.1.2), in place, the lowest real value, or the highest where low ones are bright."""
    value = number(dataset, "PixelPaddingValue")
    if value is None or stored.dtype.kind == "f":
        return
    limit = number(dataset, "PixelPaddingRangeLimit")
    ends = [value, value if limit is None else limit]
    if stored.dtype.kind == "i":  # some files state the bits of a negative number as an unsigned one
        ends = [end - 2 ** (8 * stored.itemsize) if end >= 2 ** (8 * stored.itemsize - 1) else end for end in ends]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    if padding.any() and not padding.all():
        real = values[~padding]
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1" and in_hounsfield(dataset) is False
        values[padding] = real.max() if inverted else real.min()
