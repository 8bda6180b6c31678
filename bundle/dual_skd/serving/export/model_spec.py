# SPDX-License-Identifier: Apache-2.0
"""The specification of a model, by which an artefact is used without this package.

It has the steps from a file to the input, those of :func:`dual_skd.data.image_transforms` in its order, and from the
output to probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.utils import ensure_tuple_rep

from dual_skd.data.reading.grey import LUMA
from dual_skd.data.reading.intensity import window_centre, window_range
from dual_skd.runs.model_file import temperature_of
from dual_skd.serving.export.formats import INPUT, OUTPUT

PERCENTILES = [0.5, 99.5]
AREA_MEAN = "pixel i of m is the mean of pixels floor(i * n / m) to ceil((i + 1) * n / m) - 1 of n"
REFUSALS = (
    "refuse an image that isn't in Hounsfield units where hounsfield is true and the step scale has a range of "
    "numbers; one of another DICOM Modality where modalities are given without an empty one (X-ray: CR, DX, DR, RG); "
    "one whose channels differ by more than 0.1 of its range on the mean where colour is false"
)


def model_spec(info: Mapping[str, Any]) -> dict[str, Any]:
    """Describes what an artefact takes and gives.

    Args:
        info: of the model, from :func:`dual_skd.runs.model_file.load_model`.

    Returns:
        plain values: ``input`` and ``output`` (name, dtype, shape, meaning), ``preprocessing`` (the options it was
        trained with, ``steps`` with their parameters, and ``expected`` with ``text``, which images to refuse),
        ``class_names``, ``temperature``, ``activation``.
    """
    given = dict(info["preprocessing"])
    if given.get("expected"):
        given["expected"] = {**given["expected"], "text": REFUSALS}
    dims = given.get("spatial_dims", 2)
    size = list(ensure_tuple_rep(given.get("image_size", 96), dims))
    multi_label = bool(info.get("multi_label"))
    activation, names = "sigmoid" if multi_label else "softmax", list(info["class_names"])
    return {
        "input": {
            "name": INPUT, "dtype": "float32", "shape": ["batch", info["architecture"].get("in_channels", 1), *size],
            "axes": ["batch", "channel", *(["row", "column"] if dims == 2 else ["x", "y", "z"])],
        },
        "preprocessing": {**given, "steps": preprocessing_steps(given)},
        "output": {
            "name": OUTPUT, "dtype": "float32", "shape": ["batch", len(names)],
            "meaning": f"probabilities in the order of class_names are {activation}(logits / temperature)"
            + ("; every class above 0.5 is named" if multi_label else "; the most probable class is the decision"),
        },
        "class_names": names,
        "activation": activation,
        "temperature": temperature_of(info) or 1.0,
    }  # fmt: skip


def preprocessing_steps(preprocessing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of preprocessing, each with ``step``, its parameters, and ``text``, its exact definition."""
    dims = preprocessing.get("spatial_dims", 2)
    size = list(ensure_tuple_rep(preprocessing.get("image_size", 96), dims))
    window, spacing = preprocessing.get("window") or "percentile", preprocessing.get("spacing")
    found = [_read(dims, window, preprocessing.get("frame")), _grey(window)]
    if dims == 3:
        text = "axes turned and flipped, without resampling, to x from the patient's left to right, y back to front, "
        found.append({"step": "orient", "axes": "RAS", "text": text + "z feet to head (nibabel's RAS+)"})
    if spacing is not None:
        found.append(_resample(spacing, dims))
    found.append(_scale(window))
    fit = preprocessing.get("fit") or "stretch"
    if spacing is None and fit == "stretch":
        return [*found, _resize(size)]
    if spacing is None:
        found.append(_fit(size, fit))
    return [*found, _crop_or_pad(size)]


def _read(dims: int, window: Any, frame: Any) -> dict[str, Any]:
    values = (
        "stored values as float32; DICOM: slope and intercept applied (Hounsfield units for CT), pixels whose stored "
        "value is PixelPaddingValue, or from it to PixelPaddingRangeLimit, given the lowest value of the other pixels "
        "of their frame (with MONOCHROME1 the highest, but not in Hounsfield units)"
    )
    values += ", then the file's own VOI LUT or window" if window == "file" else ", no VOI LUT or window"
    what = "one image, rows from top to bottom, EXIF orientation applied" if dims == 2 else "a volume"
    if dims == 2 and frame is not None:
        what += f"; of a file with several frames: {frame}" + (" (number count // 2 from 0)" * (frame == "middle"))
    return {"step": "read", "frame": frame, "text": f"{what}; {values}"}


def _grey(window: Any) -> dict[str, Any]:
    centre = window_centre(window)
    mirrored = "largest value + smallest value - value" if centre is None else f"{2 * centre:g} - value"
    if window == "file":
        mirrored += ", of the values that the VOI LUT or window can give"
    text = (
        "one channel: luma of RGB (ITU-R BT.601) without rounding; alpha is ignored; palettes and CMYK become RGB "
        f"before; DICOM MONOCHROME1 is mirrored, unless it is CT in Hounsfield units: {mirrored}"
    )
    return {"step": "grey", "luma": list(LUMA), "text": text}


def _resample(spacing: Any, dims: int) -> dict[str, Any]:
    text = (
        "per axis of n pixels of s mm: round((n - 1) * s / spacing + 1) pixels (halves to even); pixel i is the linear "
        "interpolation at input position i * spacing / s, positions outside take the nearest pixel"
    )
    mm = [float(value) for value in ensure_tuple_rep(spacing, dims)]
    return {"step": "resample", "spacing": mm, "text": text}


def _scale(window: Any) -> dict[str, Any]:
    if window == "zscore":
        text = "value = (value - mean) / standard deviation of this image (population), not divided where that is 0"
        return {"step": "zscore", "text": text}
    text = "value = clip(2 * (value - low) / (high - low) - 1, -1, 1); where high = low: value - low - 1, not clipped"
    if window == "file":
        ends = "low and high: the least and the largest value that the file's VOI LUT or window can give; of an image "
        return {"step": "scale", "range": "file", "text": ends + "without one, those of the image; " + text}
    if window == "percentile":
        text = (
            "low and high: these percentiles of all values of this image, linearly interpolated, or where both are the "
            f"same the least and the largest value; {text}"
        )
        return {"step": "scale", "percentiles": PERCENTILES, "text": text}
    return {"step": "scale", "range": list(window_range(window)), "text": text}


def _resize(size: list[int]) -> dict[str, Any]:
    return {"step": "resize", "size": size, "text": f"per axis from n to m pixels: {AREA_MEAN}"}


def _fit(size: list[int], fit: str) -> dict[str, Any]:
    which = "smallest" if fit == "pad" else "largest"
    text = (
        "the first two axes, of n pixels of s mm (where the file doesn't state them, 1 and 1, or what DICOM's "
        "PixelAspectRatio or the densities of a picture give as their quotient), are scaled by one factor: k is the "
        f"{which} of their size / (n * s), and each gets m = round(n * s * k) pixels (halves to even, at least 1); a "
        f"third axis gets its size; {AREA_MEAN}"
    )
    return {"step": "fit", "fit": fit, "size": size, "text": text}


def _crop_or_pad(size: list[int]) -> dict[str, Any]:
    text = (
        "per axis from n to m pixels: if n > m keep m pixels from n // 2 - m // 2 on; if n < m add (m - n) // 2 pixels "
        "of -1 before and the others after"
    )
    return {"step": "crop_or_pad", "size": size, "text": text}
