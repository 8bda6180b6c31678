# SPDX-License-Identifier: Apache-2.0
"""From an image or a volume to the probabilities of its classes, with what ``dual-skd export`` writes:
``model.ts`` and ``export.json``. Neither MONAI Deploy nor dual_skd is imported.

The steps, their order and their formulas are those of ``preprocessing.steps`` in export.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch.nn import functional

PROJECTIONS = ("CR", "DX", "DR", "RG")
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"  # the single-frame one: MONAI Deploy's reader takes no other
OTHER_UNITS = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")  # RescaleType of maps made of CT


def load(folder: str | Path) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """The network, on the GPU where there is one, and the content of export.json.

    Raises:
        ValueError: one of the two files isn't there.
    """
    model, about = Path(folder) / "model.ts", Path(folder) / "export.json"
    if missing := [path.name for path in (model, about) if not path.is_file()]:
        raise ValueError(
            f"{folder} has no {' and no '.join(missing)}; give the folder that "
            "`dual-skd export RUN --formats torchscript` writes."
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.jit.load(model, map_location=device).eval(), json.loads(about.read_text(encoding="utf-8"))


def refuse_padding(headers: Iterable[Mapping[str, Any]]) -> None:
    """Padding looks like the image in the values of MONAI Deploy's reader, which has rescaled them.

    Raises:
        ValueError: a header has PixelPaddingValue, whose pixels took another value in training.
    """
    if any(header.get("PixelPaddingValue") is not None for header in headers):
        raise ValueError(
            "The series has PixelPaddingValue, whose pixels can't be given the lowest value of the image here, as they "
            "were in training; use `python -m monai.bundle run inference`."
        )


def refuse_inverted(headers: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """MONAI Deploy's reader mirrors MONOCHROME1 within its own range, so that its values have no unit any more.

    Raises:
        ValueError: a header has MONOCHROME1, and the network wants a window in the file's units, or it is CT, which was
            not mirrored in training.
    """
    window = any("range" in step for step in about["preprocessing"]["steps"])
    for header in headers:
        inverted = _word(header, "PhotometricInterpretation") == "MONOCHROME1"
        if inverted and (window or _word(header, "Modality") == "CT"):
            raise ValueError(
                "The series is stored inverted (MONOCHROME1), and its values don't keep their unit here, which the "
                "network was trained with; use `python -m monai.bundle run inference`."
            )


def refuse_oblong(headers: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """MONAI Deploy's reader gives the spacing of pixels, but not PixelAspectRatio, which stands in its place.

    Raises:
        ValueError: a header has it, and images kept their shape in training.
    """
    keeps = any(step["step"] == "fit" for step in about["preprocessing"]["steps"])
    if keeps and any(len(set(map(int, header.get("PixelAspectRatio") or (1, 1)))) > 1 for header in headers):
        raise ValueError(
            "The series has PixelAspectRatio: its pixels aren't squares, and the network was trained on images that "
            "keep their shape; use `python -m monai.bundle run inference`."
        )


def refuse_unexpected(headers: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Looks whether the series is of the kind that the network was trained on, as ``expected`` of export.json says.

    Raises:
        ValueError: it is of another modality, or isn't in Hounsfield units, which the network's window is for.
    """
    expected = about["preprocessing"].get("expected") or {}
    known = expected.get("modalities") or [""]
    in_units = expected.get("hounsfield") and not isinstance(about["preprocessing"].get("window"), str)
    otherwise = "use `python -m monai.bundle run inference` with --unexpected_input accept to have it answered"
    for header in headers:
        modality = _word(header, "Modality")
        modality = "X-ray" if modality in PROJECTIONS else modality
        if "" not in known and modality not in ("", "OT", *known):
            raise ValueError(f"The series is of modality {modality}, training had {', '.join(known)}; {otherwise}.")
        if in_units and not in_hounsfield(header):
            raise ValueError(
                "By its headers the series isn't in Hounsfield units, which the network's intensity window is for; "
                f"{otherwise}."
            )


def in_hounsfield(header: Mapping[str, Any]) -> bool | None:
    """Whether rescaled values are Hounsfield units: grey CT with a rescale; None for CT without any."""
    grey = _word(header, "PhotometricInterpretation").startswith("MONOCHROME")
    if _word(header, "Modality") != "CT" or not grey or _word(header, "RescaleType") in OTHER_UNITS:
        return False
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    rescaled = slope is not None or intercept is not None
    identity = (slope or 1, intercept or 0) == (1, 0) and (header.get("BitsStored") or 8) <= 8
    if header.get("SOPClassUID") == CT_IMAGE_STORAGE:
        return True if rescaled else None
    return rescaled and not identity


def _word(header: Mapping[str, Any], keyword: str) -> str:
    """A defined term, which some write in small letters or with spaces."""
    return str(header.get(keyword) or "").strip().upper()


def classify(
    volume: np.ndarray,
    network: torch.nn.Module,
    about: Mapping[str, Any],
    *,
    affine: np.ndarray | None = None,
    spacing: Sequence[float] | None = None,
) -> list[dict[str, float]]:
    """Probability of every class: for each slice with a network of images, once with a network of volumes.

    Args:
        volume: (slices, rows, columns), in Hounsfield units for CT; MONOCHROME1 is already inverted.
        network: of :func:`load`.
        about: of :func:`load`.
        affine: (4, 4) from (column, row, slice) indices to mm in RAS axes; needed for volumes only.
        spacing: distance of columns, rows and slices in mm; needed where the network was trained at a fixed spacing.
            Where images keep their shape (the step "fit"), pixels count as squares without it.

    Raises:
        ValueError: the volume can't be prepared as the training images were.
    """
    volume = np.asarray(volume)
    if volume.ndim != 3 or not np.isfinite(volume).all():
        raise ValueError(f"Expected finite grey values (slices, rows, columns), found an array of {volume.shape}.")
    array = volume.astype(np.float32).transpose(2, 1, 0)  # (x, y, z)
    if about["preprocessing"].get("window") == "file":
        raise ValueError('The network was trained with window "file", and MONAI Deploy\'s reader gives no VOI LUT.')
    flat = about["preprocessing"].get("spatial_dims", 2) == 2
    images = [array[..., index] for index in range(array.shape[2])] if flat else [array]
    steps = about["preprocessing"]["steps"]
    batch = torch.stack([prepare(image, steps, affine=affine, spacing=spacing) for image in images])
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        logits = torch.cat([network(one.to(device)).float().cpu() for one in batch.split(16)])
    logits = logits / about["temperature"]
    rows = logits.sigmoid() if about["activation"] == "sigmoid" else logits.softmax(1)
    return [dict(zip(about["class_names"], row.tolist(), strict=True)) for row in rows]


def prepare(
    image: np.ndarray,
    steps: Sequence[Mapping[str, Any]],
    *,
    affine: np.ndarray | None = None,
    spacing: Sequence[float] | None = None,
) -> torch.Tensor:
    """One image (x, y) or volume (x, y, z) as the network takes it: (1, rows, columns) or (1, x, y, z)."""
    mm = [] if spacing is None else list(spacing)[: image.ndim]
    for step in steps:
        name = step["step"]
        if name == "orient":
            if affine is None:
                raise ValueError("This series has no positions, so its axes aren't known.")
            now = nibabel.io_orientation(affine)
            turn = nibabel.orientations.ornt_transform(now, nibabel.orientations.axcodes2ornt(step["axes"]))
            image = nibabel.apply_orientation(image, turn)
            mm = [mm[axis] for axis in np.argsort(turn[:, 0])] if mm else mm
        elif name == "resample":
            if not mm:
                raise ValueError("This series has no pixel spacing, and the network was trained at a fixed one.")
            wanted = step["spacing"][::-1] if image.ndim == 2 else step["spacing"]  # of images (rows, columns)
            for axis, (old, new) in enumerate(zip(mm, wanted, strict=True)):
                image = _interpolated(image, axis, old, new)
        elif name == "scale":
            low, high = np.percentile(image, step["percentiles"]) if "percentiles" in step else step["range"]
            image = image - low - 1 if high == low else np.clip(2 * (image - low) / (high - low) - 1, -1, 1)
        elif name == "zscore":
            image = (image - image.mean()) / (image.std() or 1)
        elif name == "fit":
            image = _fitted(image, mm or [1.0, 1.0], step)
        elif name in ("resize", "crop_or_pad"):
            if image.ndim == 2:
                image = image.T  # sizes are (rows, columns)
            tensor = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]
            return _resized(tensor, step["size"]) if name == "resize" else _cropped(tensor, step["size"])
        elif name not in ("read", "grey"):  # the reader gives one channel
            raise ValueError(f"export.json asks for the unknown step {name!r}; take the app of the same version.")
    raise ValueError("export.json has no step that gives the network's size; export again.")


def _interpolated(image: np.ndarray, axis: int, old: float, new: float) -> np.ndarray:
    count = image.shape[axis]
    size = round((count - 1) * old / new + 1)
    places = np.clip(np.arange(size) * new / old, 0, count - 1)
    below = np.minimum(places.astype(int), max(count - 2, 0))
    share = (places - below).reshape([-1 if one == axis else 1 for one in range(image.ndim)])
    above = np.minimum(below + 1, count - 1)
    return image.take(below, axis) * (1 - share) + image.take(above, axis) * share


def _fitted(image: np.ndarray, mm: Sequence[float], step: Mapping[str, Any]) -> np.ndarray:
    wanted = step["size"][::-1] if image.ndim == 2 else step["size"]  # of images (rows, columns)
    extent = [count * length for count, length in zip(image.shape[:2], mm[:2], strict=True)]
    scales = [size / one for size, one in zip(wanted[:2], extent, strict=True)]
    scale = min(scales) if step["fit"] == "pad" else max(scales)
    size = [*(max(round(one * scale), 1) for one in extent), *wanted[2:]]
    return _resized(torch.from_numpy(np.ascontiguousarray(image, np.float32))[None], size)[0].numpy()


def _resized(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    pool = functional.adaptive_avg_pool2d if image.ndim == 3 else functional.adaptive_avg_pool3d
    return pool(image, list(size))


def _cropped(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    padding: list[int] = []
    for axis, (now, wanted) in enumerate(zip(image.shape[1:], size, strict=True), start=1):
        if now > wanted:
            image = image.narrow(axis, now // 2 - wanted // 2, wanted)
        missing = max(wanted - now, 0)
        padding = [missing // 2, missing - missing // 2, *padding]  # functional.pad begins with the last axis
    return functional.pad(image, padding, value=-1.0)


def predicted(probabilities: Mapping[str, float], about: Mapping[str, Any]) -> list[str]:
    """The classes that are the answer: the most probable one, or with several labels per image those above one half."""
    if about["activation"] == "sigmoid":
        return [name for name, value in probabilities.items() if value > 0.5]
    return [max(probabilities, key=probabilities.__getitem__)]


def report_text(rows: Sequence[Mapping[str, float]], about: Mapping[str, Any]) -> str:
    """The result in words, with what it may not be used for."""
    lines = ["For research use only. Not a medical device: no clinical decision may rest on this report."]
    for number, row in enumerate(rows, start=1):
        which = f"Image {number} of {len(rows)}: " if len(rows) > 1 else ""
        answer = ", ".join(predicted(row, about)) or "none of the classes"
        values = ", ".join(f"{name} {value:.4f}" for name, value in row.items())
        lines.append(f"{which}{answer} (probabilities: {values})")
    lines.append(f"SHA-256 of the weights: {about['model']['sha256']}")
    return "\n".join(lines)
