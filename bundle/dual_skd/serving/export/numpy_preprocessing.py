# SPDX-License-Identifier: Apache-2.0
"""Preprocessing with NumPy alone, by the steps of a model's specification: from an image to what an artefact takes.

:func:`dual_skd.data.image_transforms` computes the same, up to rounding, by PyTorch and MONAI, whose start takes longer
than a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from dual_skd.data.reading.reader import PHOTOMETRIC, VOI_RANGE, channels_first
from dual_skd.data.reading.refusals import no_spacing, not_finite

Step = Mapping[str, Any]


def can_preprocess(steps: Sequence[Step]) -> bool:
    """Whether these steps hold for every image: volumes whose axes are slanted are resampled by MONAI alone."""
    return not {"orient", "resample"} <= {step["step"] for step in steps}


def preprocess(steps: Sequence[Step], array: np.ndarray, meta: Mapping[str, Any]) -> np.ndarray:
    """Prepares an image.

    Args:
        steps: of :func:`dual_skd.serving.export.model_spec.preprocessing_steps`; the first one, "read", is done.
        array, meta: what :func:`dual_skd.data.reading.reader.read_image` gave.

    Returns:
        (1, H, W) or (1, X, Y, Z), float32.

    Raises:
        InputError: values aren't finite, or the spacing of the pixels is needed and not known.
    """
    named = {step["step"]: step for step in steps}
    ends = _ends(meta)
    values = _grey(channels_first(array, meta), named, meta, ends)
    if not np.isfinite(values).all():
        raise not_finite(meta["filename_or_obj"])
    if "resample" in named and not meta["spacing_known"]:
        raise no_spacing(meta["filename_or_obj"])
    affine = np.asarray(meta["affine"], dtype=float)
    lengths = np.linalg.norm(affine[:3, : values.ndim], axis=0)  # mm per pixel of each axis
    lengths[lengths == 0] = 1.0
    if "orient" in named:
        turns = io_orientation(affine)
        values, lengths = apply_orientation(values, turns), lengths[np.argsort(turns[:, 0])]
    else:
        values, lengths = values.T, lengths[::-1]  # readers give (columns, rows)
    for step in steps:
        match step["step"]:
            case "resample":
                values = _each_axis(_resampled, values, list(zip(lengths, step["spacing"], strict=True)))
            case "scale":
                values = _scaled(values, *_range(step, values, ends))
            case "zscore":
                values = (values - values.mean(dtype=float)) / (values.std(dtype=float) or 1.0)
            case "resize":
                values = _each_axis(_averaged, values, step["size"])
            case "fit":
                values = _each_axis(_averaged, values, _fitting(step, values.shape, lengths))
            case "crop_or_pad":
                values = _each_axis(_cropped, values, step["size"])
    return values[None].astype(np.float32)


def _ends(meta: Mapping[str, Any]) -> tuple[float, float] | None:
    """Lowest and highest value that the VOI LUT or window of the file can give, None where none was applied."""
    low, high = map(float, meta[VOI_RANGE])
    return (low, high) if low < high else None


def _grey(
    image: np.ndarray, named: Mapping[str, Step], meta: Mapping[str, Any], ends: tuple[float, float] | None
) -> np.ndarray:
    """One channel of an image (C, ...), in which bright means dense."""
    if image.shape[0] <= 2:  # the second is alpha
        grey = image[0]
    else:
        red, green, blue = named["grey"]["luma"]
        grey = red * image[0] + green * image[1] + blue * image[2]
    if meta[PHOTOMETRIC] != "MONOCHROME1":
        return grey
    window = named.get("scale", {}).get("range", "file")
    about = ends if window == "file" else window
    if about is None:
        real = grey[np.isfinite(grey)]
        about = (real.min(), real.max()) if real.size else (0.0, 0.0)
    return about[0] + about[1] - grey


def _range(step: Step, values: np.ndarray, ends: tuple[float, float] | None) -> tuple[float, float]:
    """What becomes -1 and 1."""
    if "percentiles" in step:
        low, high = np.percentile(values, step["percentiles"])
    elif step["range"] != "file":
        return tuple(step["range"])
    elif ends is not None:
        return ends
    else:
        return values.min(), values.max()
    return (low, high) if low < high else (values.min(), values.max())


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return values - low - 1 if high == low else np.clip(2 * (values - low) / (high - low) - 1, -1, 1)


def _fitting(step: Step, shape: Sequence[int], lengths: Sequence[float]) -> list[int]:
    """Pixels per axis of an image that is scaled as a whole; the third axis of a volume gets its size."""
    extent = [count * length for count, length in zip(shape[:2], lengths[:2], strict=True)]
    factor = {"pad": min, "crop": max}[step["fit"]](
        wanted / one for wanted, one in zip(step["size"][:2], extent, strict=True)
    )
    return [*(max(round(one * factor), 1) for one in extent), *step["size"][2:]]


def _each_axis(change: Callable[[np.ndarray, int, Any], np.ndarray], values: np.ndarray, how: Sequence) -> np.ndarray:
    for axis, one in enumerate(how):
        values = change(values, axis, one)
    return values


def _resampled(values: np.ndarray, axis: int, mm: tuple[float, float]) -> np.ndarray:
    given, wanted = mm
    count = values.shape[axis]
    at = np.arange(int(np.round((count - 1) * given / wanted + 1))) * wanted / given
    below = np.clip(np.floor(at).astype(int), 0, count - 1)
    share = np.clip(at - below, 0, 1).reshape([-1 if one == axis else 1 for one in range(values.ndim)])
    above = np.minimum(below + 1, count - 1)
    return values.take(below, axis) * (1 - share) + values.take(above, axis) * share


def _averaged(values: np.ndarray, axis: int, count: int) -> np.ndarray:
    old = values.shape[axis]
    if count == old:
        return values
    edges = [(place * old // count, -((place + 1) * old // -count)) for place in range(count)]
    return np.stack([values.take(range(*edge), axis).mean(axis, dtype=float) for edge in edges], axis)


def _cropped(values: np.ndarray, axis: int, count: int) -> np.ndarray:
    old = values.shape[axis]
    if old > count:
        first = old // 2 - count // 2
        return values.take(range(first, first + count), axis)
    widths = [(0, 0)] * values.ndim
    widths[axis] = ((count - old) // 2, count - old - (count - old) // 2)
    return np.pad(values, widths, constant_values=-1.0)
