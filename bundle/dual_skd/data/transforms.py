# SPDX-License-Identifier: Apache-2.0
"""The few image steps that MONAI has no transform for: one reader for all formats, grey values, intensity windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import ImageReader, NibabelReader, NumpyReader, PILReader, PydicomReader
from PIL import Image

from dual_skd.errors import InputError

# Luma of ITU-R Recommendation BT.601, section 2.5.1
LUMA = (0.299, 0.587, 0.114)

# (centre, width) in Hounsfield units, as radiology text books and viewers preset them
WINDOWS = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (40.0, 400.0),
    "brain": (40.0, 80.0),
    "bone": (500.0, 2000.0),
    "soft_tissue": (50.0, 350.0),
}

PHOTOMETRIC = "00280004"  # DICOM PhotometricInterpretation, as the JSON tag that MONAI's PydicomReader keeps


class MedicalReader(ImageReader):
    """Reads PNG, JPEG, BMP, TIFF, DICOM (file or series folder), NIfTI and NumPy files with MONAI's own readers.

    Why not ``LoadImaged``'s automatic choice: it takes ITK for DICOM where ITK is installed and pydicom elsewhere,
    drops the DICOM photometric interpretation, and reads palette PNGs as palette indices. Here the file decides, the
    photometric interpretation is kept as a string (nested DICOM headers can't be collated into a batch), and an
    object can be shared by the threads of a caching data set.

    Arrays have MONAI's axis order: (W, H) for images, (X, Y, Z) for volumes, channels last where there are any.
    """

    def verify_suffix(self, filename: str | Path | Sequence[str | Path]) -> bool:
        return True

    def read(self, data: str | Path | Sequence[str | Path], **kwargs) -> tuple[ImageReader, object]:
        names = [data] if isinstance(data, (str, Path)) else list(data)
        reader = _reader_for(Path(names[0]))
        return reader, reader.read(names[0] if len(names) == 1 else names, **kwargs)

    def get_data(self, img: tuple[ImageReader, object]) -> tuple[np.ndarray, dict]:
        reader, loaded = img
        array, meta = reader.get_data(loaded)
        if isinstance(reader, PydicomReader):
            photometric = meta.pop(PHOTOMETRIC, {}).get("Value", [""])[0]
            kept = {key: value for key, value in meta.items() if not isinstance(value, dict)}
            return array, {**kept, PHOTOMETRIC: photometric}
        return array, meta


class _LenientPydicomReader(PydicomReader):
    """PydicomReader that keeps the photometric interpretation and takes projection images as they are."""

    def _get_meta_dict(self, img) -> dict:
        kept = super()._get_meta_dict(img)
        kept[PHOTOMETRIC] = {"vr": "CS", "Value": [str(img.get("PhotometricInterpretation", ""))]}
        return kept

    def _get_affine(self, metadata: dict, lps_to_ras: bool = True):
        # X-rays have no patient orientation: MONAI would warn once per image and then use the same identity
        if "00200037" not in metadata or "00200032" not in metadata:
            return np.eye(4)
        return super()._get_affine(metadata, lps_to_ras)


def _reader_for(path: Path) -> ImageReader:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return NibabelReader()
    if name.endswith((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")):
        return PILReader(converter=_without_palette)
    if name.endswith(".npy"):
        return NumpyReader()
    return _LenientPydicomReader()


def _without_palette(image: Image.Image) -> Image.Image:
    return image.convert("RGB") if image.mode in ("P", "PA", "CMYK", "YCbCr") else image


def to_grey(image: torch.Tensor) -> torch.Tensor:
    """Makes any picture one grey channel in which bright means dense.

    Colour becomes ITU-R BT.601 luma. An alpha channel is ignored: viewers write constant or meaningless alpha, and
    blending it over an assumed background could paint the origin of a file (so, often, its class) into the picture.
    DICOM images stored as MONOCHROME1 (low values are bright) are mirrored within their own range.

    Args:
        image: (C, H, W) or (C, H, W, D) with C of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).

    Returns:
        (1, H, W) or (1, H, W, D), floating point, meta data kept.

    Raises:
        InputError: for other numbers of channels.
    """
    channels = image.shape[0]
    if channels not in (1, 2, 3, 4):
        raise InputError(
            f"Expected a grey, RGB or RGBA image, found {channels} channels in {_name_of(image)}; "
            "a volume in a 2D task needs spatial_dims 3."
        )
    grey = image if image.is_floating_point() else image.float()
    if channels <= 2:
        grey = grey[:1]
    else:
        red, green, blue = LUMA
        grey = red * grey[0:1] + green * grey[1:2] + blue * grey[2:3]
    if _photometric(image) == "MONOCHROME1":
        grey = grey.amax() + grey.amin() - grey
    return grey


def read_grey(path: str | Path) -> torch.Tensor:
    """Reads a file as training does (:class:`MedicalReader`, channel first, :func:`to_grey`), without meta data.

    Returns:
        (W, H) or (X, Y, Z) float32.
    """
    reader = MedicalReader()
    values, meta = reader.get_data(reader.read(path))
    image = torch.from_numpy(np.asarray(values, dtype=np.float32))
    # MONAI's mark of an array without channels is NaN; the readers here put channels last
    has_channels = meta.get("original_channel_dim") == -1
    image = image.movedim(-1, 0) if has_channels else image[None]
    grey = to_grey(image)[0]
    return grey.amax() + grey.amin() - grey if meta.get(PHOTOMETRIC) == "MONOCHROME1" else grey


def window_range(window: str | Sequence[float] | None) -> tuple[float, float]:
    """Lowest and highest value of an intensity window, for ``ScaleIntensityRanged(a_min, a_max)``.

    Args:
        window: "lung", "mediastinum", "brain", "bone", "soft_tissue", or [centre, width] in the image's units
            (HU for CT). None (no window, percentiles are used) gives (0, 1), which nothing should read.

    Raises:
        InputError: for an unknown name or a width that is not positive.
    """
    if window is None:
        return 0.0, 1.0
    if isinstance(window, str):
        if window not in WINDOWS:
            raise InputError(f"Unknown window {window!r}; use one of {', '.join(WINDOWS)}, or [centre, width] in HU.")
        centre, width = WINDOWS[window]
    else:
        values = list(window)
        if len(values) != 2 or not all(isinstance(v, (int, float)) for v in values) or values[1] <= 0:
            raise InputError(f"A window is [centre, width] with a positive width, found {window}.")
        centre, width = map(float, values)
    return centre - width / 2, centre + width / 2


def _photometric(image: torch.Tensor) -> str:
    value = getattr(image, "meta", {}).get(PHOTOMETRIC, "")
    if isinstance(value, dict):  # the nested form of PydicomReader(prune_metadata=False)
        value = (value.get("Value") or [""])[0]
    return str(value)


def _name_of(image: torch.Tensor) -> str:
    return str(getattr(image, "meta", {}).get("filename_or_obj", "an image"))
