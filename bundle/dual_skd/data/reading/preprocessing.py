# SPDX-License-Identifier: Apache-2.0
"""From a file to the tensor that a network takes: the same steps for training, evaluation, inference and Python."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Lambdad,
    LoadImaged,
    MapTransform,
    Orientationd,
    Resize,
    Resized,
    ResizeWithPadOrCropd,
    SelectItemsd,
    Spacingd,
    Transposed,
)
from monai.utils import ensure_tuple_rep

from dual_skd.data.reading.expectation import ExpectedInput
from dual_skd.data.reading.grey import name_of, to_grey
from dual_skd.data.reading.intensity import scale_intensity, window_centre
from dual_skd.data.reading.picture import Frame
from dual_skd.data.reading.reader import read_image
from dual_skd.data.reading.refusals import no_spacing, not_finite
from dual_skd.errors import InputError, choose

# LoadImage makes every reader that MONAI has, and one of them warns each time; none of them is used beside this one
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")

# How an image of another shape becomes one of the wanted size: the factor of its two sides that both are scaled by.
# "stretch" scales each axis on its own, so that a circle may become an ellipse. "pad" scales the image as a whole until
# it fits, and fills the rest with -1; "crop" until its shorter side fits, and cuts out the middle. Both count pixels as
# large as the file states, as squares where it doesn't. Of volumes they scale the axial planes, and stretch the third
# axis.
AFTER_WINDOW = " after the window, as it holds numbers near the largest of float32"
FITS = {"stretch": None, "pad": min, "crop": max}


class MedicalReader(ImageReader):
    """:func:`~dual_skd.data.reading.reader.read_image` as MONAI's ``LoadImage`` takes readers.

    ``read`` only remembers the name, because ``LoadImage`` swallows what it raises. The reader has no state, so that
    the threads of a caching data set can share it.

    Args:
        spatial_dims: 2 for images, 3 for volumes; None takes what the file holds.
        frame: which frame or slice of several to take as an image: "middle" or a number from 0.
        voi_lut: whether to apply the VOI LUT or window of DICOM files; other formats have none.
    """

    def __init__(self, spatial_dims: int | None = None, *, frame: Frame | None = None, voi_lut: bool = False) -> None:
        self.options: dict[str, Any] = {"spatial_dims": spatial_dims, "frame": frame, "voi_lut": voi_lut}

    def verify_suffix(self, filename: str | Path | Sequence[str | Path]) -> bool:
        return True

    def read(self, data: str | Path | Sequence[str | Path], **kwargs: Any) -> list[str]:
        return [str(data)] if isinstance(data, (str, Path)) else [str(name) for name in data]

    def get_data(self, img: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
        if len(img) != 1:
            raise InputError(f"Expected one file or folder per image, found {len(img)}: {', '.join(img)}.")
        return read_image(img[0], **self.options)


def image_transforms(
    spatial_dims: int = 2,
    image_size: int | Sequence[int] = 96,
    window: str | Sequence[float] | None = "percentile",
    spacing: float | Sequence[float] | None = None,
    frame: int | str | None = None,
    fit: str | None = None,
    *,
    with_label: bool = False,
    expected: Mapping[str, Any] | None = None,
    unexpected_input: str = "refuse",
) -> Compose:
    """The steps between a record's file and the network: read, make grey, turn upright, resample, scale, size.

    ``load_model`` gives these arguments under ``info["preprocessing"]``, so that a model is used as it was trained:
    ``image_transforms(**info["preprocessing"])({"image": "scan.dcm"})["image"]``.

    Args:
        spatial_dims: 2 gives (1, H, W), 3 gives (1, X, Y, Z) in RAS: left to right, back to front, feet to head.
        image_size: the network's input in pixels, one number or one per axis.
        window: see :func:`dual_skd.data.choose_window`, already settled (not "auto").
        spacing: mm per pixel that images are resampled to, one number or one per axis in the order of ``image_size``
            (2D: rows, columns). They are then cropped or padded about their middle. None: ``fit`` decides.
        frame: which frame of multi-frame files a 2D task takes, "middle" or a number.
        fit: how images of another shape become one of ``image_size``, see :data:`FITS`; None: "stretch".
        with_label: keep "label" beside "image", as a tensor, of records that have one.
        expected: fields of :class:`~dual_skd.data.reading.expectation.InputExpectation` that images are compared with;
            None: nothing is compared.
        unexpected_input: "refuse" or "accept" for images that differ from ``expected``.

    Raises:
        InputError: on use, naming the file: it can't be read, has other axes than ``spatial_dims``, values that are
            not finite, no spacing where one is asked for, or isn't as expected. At once: for an unknown ``fit`` or
            ``unexpected_input``, a ``spacing`` that isn't positive, or ``fit`` and ``spacing`` together.
    """
    window = window or "percentile"
    chosen: Any = None if frame == "all" else frame  # with "all", the records name each frame
    reader = MedicalReader(spatial_dims, frame=chosen, voi_lut=window == "file")
    resampling, resizing = _size_steps(spatial_dims, image_size, spacing, fit)
    steps = [
        LoadImaged("image", reader=reader),
        EnsureChannelFirstd("image"),
        *([Lambdad("image", ExpectedInput(expected, window, unexpected_input))] if expected else []),
        Lambdad("image", partial(to_grey, centre=window_centre(window))),
        Lambdad("image", require_finite),
    ]
    if spatial_dims == 3:
        steps += [Orientationd("image", axcodes="RAS", labels=None), *resampling]
    else:
        steps += [*resampling, Transposed("image", indices=[0, 2, 1])]  # readers give (W, H)
    steps += [
        scale_intensity(window),
        Lambdad("image", partial(require_finite, after=AFTER_WINDOW)),
        *resizing,
        EnsureTyped("image", dtype=torch.float32, track_meta=False),
    ]
    if with_label:
        labels = {"track_meta": False, "allow_missing_keys": True}
        steps += [EnsureTyped("label", **labels), SelectItemsd(["image", "label"], allow_missing_keys=True)]
    return Compose(steps)


def _size_steps(
    spatial_dims: int,
    image_size: int | Sequence[int],
    spacing: float | Sequence[float] | None,
    fit: str | None,
) -> tuple[list[MapTransform], list[MapTransform]]:
    """(steps that resample an image to ``spacing``, steps that bring it to ``image_size``)."""
    size = ensure_tuple_rep(image_size, spatial_dims)
    to_size = ResizeWithPadOrCropd("image", spatial_size=size, mode="constant", value=-1.0)
    factor = choose(FITS, fit or "stretch", "fit")
    if spacing is None:
        if factor is None:
            return [], [Resized("image", spatial_size=size, mode="area")]
        return [], [Lambdad("image", partial(scale_to_fit, size=size, factor=factor)), to_size]
    if fit is not None:
        raise InputError(
            f"fit is {fit!r} and spacing {spacing}: images that are resampled to a spacing keep their shape anyway, "
            "and are then padded or cropped; leave one of the two out."
        )
    pixdim = [float(value) for value in ensure_tuple_rep(spacing, spatial_dims)]
    if min(pixdim) <= 0:
        raise InputError(f"spacing is in mm and must be positive, found {spacing}.")
    if spatial_dims == 2:
        pixdim.reverse()  # readers give (W, H)
    resample = Spacingd("image", pixdim=pixdim, mode="bilinear", padding_mode="border")
    return [Lambdad("image", require_spacing), resample], [to_size]


def scale_to_fit(image: MetaTensor, size: Sequence[int], factor: Callable[..., float]) -> torch.Tensor:
    """Scales the first two axes of an image by one factor in mm, and a third one to ``size``.

    Args:
        image: (1, H, W), whose affine is that of (W, H), or (1, X, Y, Z).
        size: wanted, pixels per axis.
        factor: which of the factors that fit each of the two axes: ``min``, so that both fit, ``max``, to fill both.

    Returns:
        the image, whose first two axes are at most (``min``) or at least (``max``) as long as ``size``.
    """
    lengths = image.pixdim[:2].tolist()
    if image.ndim == 3:
        lengths.reverse()
    extent = [count * length for count, length in zip(image.shape[1:3], lengths, strict=True)]
    scale = factor(wanted / one for wanted, one in zip(size[:2], extent, strict=True))
    scaled = [max(round(one * scale), 1) for one in extent]
    return Resize([*scaled, *size[2:]], mode="area")(image)


def require_finite(image: torch.Tensor, after: str = "") -> torch.Tensor:
    """Returns the image, or raises InputError naming its file where a value is NaN or infinite, and after what."""
    if not torch.isfinite(image).all():
        raise not_finite(name_of(image), after)
    return image


def require_spacing(image: MetaTensor) -> MetaTensor:
    """Returns the image, its affine fit for resampling, or raises InputError where its file has no spacing."""
    if not image.meta.get("spacing_known", True):
        raise no_spacing(name_of(image))
    if image.ndim == 3:
        # the plane of a slice in the patient does not matter to a 2D task, the size of its pixels does
        lengths = image.affine[:3, :2].norm(dim=0).tolist()
        image.affine = torch.diag(torch.tensor([*lengths, 1.0, 1.0], dtype=torch.float64))
    return image
