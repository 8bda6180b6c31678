# SPDX-License-Identifier: Apache-2.0
"""One reader for all formats: DICOM, NIfTI, PNG, JPEG, BMP, TIFF, NumPy and MedMNIST-style files."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pydicom
from PIL import Image, ImageOps

from dual_skd.data.reading.loading import (
    DEFLATE_RATIO,
    Frame,
    NamedFrame,
    Picture,
    check_size,
    check_stored,
    chosen_frame,
    failures_named,
    plane_affine,
    quieten,
    too_many_frames,
)
from dual_skd.data.reading.locators import split_locator
from dual_skd.data.reading.npz_cache import npz_array
from dual_skd.errors import InputError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")  # never EPS and the like, which start programs
PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO = 262, 0  # a TIFF tag and one of its values
ORIENTATION, QUARTER_TURNS = 274, (5, 6, 7, 8)  # of EXIF and TIFF
OBLONG = 4.0  # times as high as wide, or as wide as high: beyond it a stated density is taken for a mistake
DENSITIES = ("dpi", "aspect", "jfif_density")  # pixels per length across and down, as Pillow calls them
RESOLUTIONS = (282, 283)  # the same as tags of TIFF
BITS_PER_SAMPLE, SAMPLE_FORMAT, UNSIGNED = 258, 339, 1
KEPT_MODES = ("L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # others become RGB

# names of meta data
PHOTOMETRIC = "00280004"  # DICOM PhotometricInterpretation, as the JSON tag that MONAI's readers use
VOI_RANGE = "voi_range"  # the ends of what the VOI LUT or window of a DICOM file gives, NaN without one

NIFTI_UNITS = {1: 1000.0, 3: 0.001}  # mm per metre and micrometre, by the code in xyzt_units; 2 is mm, 0 not stated

quieten("nibabel.global", "nibabel")


def read_image(
    image: str | Path, *, spatial_dims: int | None = None, frame: Frame | None = None, voi_lut: bool = False
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads an image or a volume, whatever its format.

    Axes are those of MONAI's readers: (W, H) for images, (X, Y, Z) for volumes, channels last where there are any;
    NumPy arrays stay as they are, MedMNIST's (H, W) and (D, H, W) are turned like pictures. DICOM: see
    :func:`~dual_skd.data.reading.dicom_pixels.read_dicom_file`. EXIF orientation is applied, as viewers do; of the
    density of pixels only the quotient of both directions counts. Palettes,
    CMYK and bi-level pictures become RGB or grey; the pages of a TIFF are frames.

    Args:
        image: a locator, see :func:`~dual_skd.data.reading.locators.split_locator`.
        spatial_dims: 2 or 3 to insist on an image or a volume; None takes what the file holds.
        frame: which frame, page or slice (of the last axis) of several to take: "middle" or a number from 0.
        voi_lut: whether to apply the VOI LUT or window of DICOM files.

    Returns:
        The array and its meta data: "affine", "original_affine" (:class:`~dual_skd.data.reading.loading.Picture`),
        "spacing_known", "modality", "hounsfield", "plane", PhotometricInterpretation, "voi_range", "spatial_shape",
        "original_channel_dim", "filename_or_obj", "in_memory" (false). NaN and infinite values are left in.

    Raises:
        InputError: whatever is wrong, in one sentence with the file, the problem and the remedy.
    """
    path, fragment = split_locator(image)
    with failures_named(image):
        picture = _read(path, fragment, spatial_dims, frame, voi_lut)
    if spatial_dims == 3 and picture.spatial_dims == 2:
        raise InputError(
            f"Expected a volume (spatial_dims 3), found one image in {image}: give --spatial-dims 2, or name the "
            "folder of a DICOM series or a NIfTI file."
        )
    if spatial_dims not in (None, picture.spatial_dims):
        raise too_many_frames(image, picture.array.shape[2])
    return picture.array, _meta_of(picture, str(image))


def image_from_array(
    array: np.ndarray, *, spatial_dims: int = 2, spacing: Sequence[float] | None = None, hounsfield: bool | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Gives an array in memory the form of :func:`read_image`.

    Unlike in files of NumPy, whose axes stay as they are, the axes are those in which pictures are shown.

    Args:
        array: an image (H, W), its first row on top, also with a last axis of 2 to 4 channels; for ``spatial_dims`` 3 a
            volume (H, W, D) of axial slices as DICOM keeps them: rows from front to back, columns from the patient's
            right to left, slices from the feet up. Bright means dense.
        spatial_dims: 2 or 3.
        spacing: mm from one value to the next along each axis, in the order of the axes; None: not known.
        hounsfield: whether the values are Hounsfield units; None: values of air tell.

    Raises:
        InputError: other axes than these, no numbers, or a spacing that isn't positive.
    """
    name = "the given array"
    picture = _arranged(array, name, spatial_dims)
    if picture.spatial_dims != spatial_dims:
        raise InputError(f"Expected an array of {spatial_dims} axes without those of channels, found {array.shape}.")
    if spacing is not None and not all(np.isfinite(value) and value > 0 for value in spacing):
        raise InputError(f"The spacing of an array is in mm and must be positive, found {tuple(spacing)}.")
    row, column, *slices = spacing or (1.0,) * spatial_dims
    # DICOM's patient axes are left, posterior, superior; the affine leads to right, anterior, superior
    affine = np.diag([-column, -row, *slices, 1.0]) if slices else plane_affine(column, row)
    turned = np.ascontiguousarray(np.swapaxes(picture.array, 0, 1))
    picture = Picture(turned, affine, spacing is not None, picture.coloured, hounsfield=hounsfield)
    return turned, _meta_of(picture, name, in_memory=True)


def hounsfield_of(meta: Mapping[str, Any]) -> bool | None:
    """Whether the values of an image are Hounsfield units, by its meta data; None where nothing tells (NaN there)."""
    return None if np.isnan(meta["hounsfield"]) else bool(meta["hounsfield"])


def _meta_of(picture: Picture, name: str, *, in_memory: bool = False) -> dict[str, Any]:
    return {
        "affine": picture.affine,
        "original_affine": picture.affine.copy(),
        "spacing_known": picture.spacing_known,
        "modality": picture.modality,
        "hounsfield": np.nan if picture.in_hounsfield is None else float(picture.in_hounsfield),
        "plane": picture.plane,
        PHOTOMETRIC: picture.photometric,
        VOI_RANGE: np.array(picture.voi_range),
        "spatial_shape": np.array(picture.array.shape[: picture.spatial_dims]),
        "original_channel_dim": -1 if picture.coloured else float("nan"),
        "filename_or_obj": name,
        "in_memory": in_memory,
    }


def channels_first(array: np.ndarray, meta: Mapping[str, Any]) -> np.ndarray:
    """What :func:`read_image` gave as (C, W, H) or (C, X, Y, Z), float32."""
    values = array.astype(np.float32, copy=False)
    return np.moveaxis(values, -1, 0) if meta["original_channel_dim"] == -1 else values[None]


def _read(path: Path, fragment: str, spatial_dims: int | None, frame: Frame | None, voi_lut: bool) -> Picture:
    if not path.exists():
        raise InputError(f"{path} does not exist; correct the path in the records.")
    if path.is_dir():
        return _dicom().read_dicom_folder(path, fragment, spatial_dims=spatial_dims, frame=frame, voi_lut=voi_lut)
    name = path.name.lower()
    if name.endswith(".npz"):
        return _read_npz(path, fragment, spatial_dims)
    if fragment:
        number = re.fullmatch(r"frame=(\d+)", fragment)
        if not number:
            raise InputError(f'Expected "frame=" and a number after "#", found {fragment!r} for {path}.')
        frame = NamedFrame(number[1])
    if not os.path.getsize(path):
        raise InputError(f"{path} is empty (0 bytes); copy the file again or leave it out.")
    if name.endswith(PICTURES):
        return _read_picture(path, spatial_dims, frame)
    if name.endswith((".nii", ".nii.gz")):
        return _slice(_read_nifti(path, spatial_dims), frame, path)
    if name.endswith(".npy"):
        return _slice(_arranged(np.load(path, mmap_mode="r", allow_pickle=False), path, spatial_dims), frame, path)
    return _dicom().read_dicom_file(path, spatial_dims=spatial_dims, frame=frame, voi_lut=voi_lut)


def _dicom() -> ModuleType:
    """The reader of DICOM, loaded with the first DICOM file: the others can be read beside pydicom 2, too."""
    try:
        from dual_skd.data.reading import dicom_pixels
    except ModuleNotFoundError as error:  # pydicom.pixels came with pydicom 3
        raise InputError(
            f"DICOM files need pydicom 3.0.2 or newer, found {pydicom.__version__} (MONAI Label's own choice of "
            "packages brings 2): install a newer one, or convert the file to NIfTI or PNG."
        ) from error
    return dicom_pixels


def _slice(picture: Picture, frame: Frame | None, path: Path) -> Picture:
    """One slice of a volume along its last axis, if ``frame`` asks for it."""
    if frame is None or picture.spatial_dims == 2:
        return picture
    chosen = chosen_frame(frame, picture.array.shape[2], path)
    array = np.ascontiguousarray(picture.array[:, :, chosen])
    spacing = np.linalg.norm(picture.affine[:3, :2], axis=0)
    return Picture(array, plane_affine(*spacing), picture.spacing_known, picture.coloured)


# ---------------------------------------------------------------------------------------------------------- pictures


def _read_picture(path: Path, spatial_dims: int | None, frame: Frame | None) -> Picture:
    # as an open file: a TIFF by its name is mapped into memory, where Pillow doesn't turn it as its orientation says
    with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        if frame is None and pages > 1:
            if spatial_dims == 2:
                raise too_many_frames(path, pages)
            layers, heights = zip(*(_page(image, index, path, pages) for index in range(pages)), strict=True)
            if len({layer.shape for layer in layers}) > 1:
                raise InputError(
                    f"{path} has pages of different sizes, which make no volume; give --frame and a number."
                )
            array, height = np.stack(layers, axis=2), heights[0]
        else:
            array, height = _page(image, chosen_frame(0 if frame is None else frame, pages, path), path, 1)
    affine = plane_affine(row=height)
    return Picture(np.ascontiguousarray(array), affine, coloured=array.ndim > (3 if pages > 1 and frame is None else 2))


def _pixel_height(image: Image.Image) -> float:
    """Height of a pixel, as viewed, divided by its width: the quotient of the pixels per length across and down."""
    stated = next((image.info[name] for name in DENSITIES if name in image.info), (1, 1))
    tags = getattr(image, "tag_v2", None)
    if tags is not None:  # of a TIFF, in whose info Pillow puts 1 where one of the two is missing
        stated = [tags.get(tag) for tag in RESOLUTIONS]
    try:
        across, down = map(float, stated)
    except (TypeError, ValueError):  # none, or no numbers: tags hold anything
        return 1.0
    if not (0 < across < np.inf and 0 < down < np.inf and 1 / OBLONG <= across / down <= OBLONG):
        return 1.0
    turned = image.getexif().get(ORIENTATION, 1) in QUARTER_TURNS
    return down / across if turned else across / down


def _page(image: Image.Image, index: int, path: Path, pages: int) -> tuple[np.ndarray, float]:
    """Values (W, H[, channels]) of a page, and the height of its pixels divided by their width."""
    if index:
        image.seek(index)
    bands = len(image.getbands())
    check_size(path, (*image.size, pages, bands), 4 if image.mode in ("I", "F") else 2)
    # compression of PNG and JPEG has limits; plain TIFF has none of it
    ratio = {"PNG": DEFLATE_RATIO, "JPEG": DEFLATE_RATIO}.get(image.format or "", 0)
    if image.format == "TIFF" and image.info.get("compression") == "raw":
        ratio = 1
    if ratio:
        bits = 1 if image.mode in ("1", "P", "L") else 8  # at least; grey of 1, 2 and 4 bits is opened as 8
        check_stored(path, image.width * image.height * bands * bits // 8, os.path.getsize(path) * ratio)
    tags = getattr(image, "tag_v2", {})
    unsigned = tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED
    if not unsigned and tags.get(BITS_PER_SAMPLE, (1,))[0] == 8:  # Pillow takes them for unsigned
        raise InputError(f"{path} has signed values of 8 bits, which can't be read; write it with 16 bits.")
    height = _pixel_height(image)  # while Pillow knows the orientation: it turns a TIFF by itself, and forgets
    page = ImageOps.exif_transpose(image)
    if page.mode == "1":
        page = page.convert("L")
    values = np.asarray(page if page.mode in KEPT_MODES else page.convert("RGB")).swapaxes(0, 1)
    if page.mode == "I" and image.format == "TIFF" and unsigned:
        values = values.view(np.uint32)  # Pillow knows 32 bits with a sign only
    if page.mode.startswith("I;16") and tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        values = np.iinfo(np.uint16).max - values  # Pillow does so for eight bits
    return values, height


# ------------------------------------------------------------------------------------------------------------- NIfTI


def _read_nifti(path: Path, spatial_dims: int | None) -> Picture:
    header_image = nibabel.load(path)
    if not isinstance(header_image, nibabel.Nifti1Image):  # Nifti2Image is one, too
        raise InputError(f"Expected a NIfTI file, found {type(header_image).__name__} in {path}; convert it to NIfTI.")
    header, affine, stored = header_image.header, header_image.affine.copy(), header_image.get_data_dtype()
    shape = tuple(int(size) for size in header_image.shape)
    while len(shape) > 2 + (spatial_dims != 2) and shape[-1] == 1:
        shape = shape[:-1]
    # a sagittal or coronal slice is stored as one of a volume
    single = shape.index(1) if spatial_dims == 2 and len(shape) == 3 and 1 in shape else None
    if len(shape) not in (2, 3):
        raise InputError(
            f"Expected an image or a volume, found {len(shape)} axes ({' x '.join(map(str, shape))}) in {path}: write "
            "one file per time point or channel."
        )
    if stored.kind == "c":
        raise InputError(f"Expected real numbers, found complex ones in {path}: write magnitudes.")
    check_size(path, shape, stored.itemsize)
    start = header_image.dataobj.offset
    values = _values_of(path, start, shape, stored)
    coloured = stored.names is not None
    if coloured:  # RGB24 and RGBA32 are records of bytes
        values = np.stack([values[name] for name in stored.names], axis=-1)
    else:
        slope, intercept = header_image.dataobj.slope, header_image.dataobj.inter
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.array(values, np.float32, order="C")
            if (slope, intercept) != (1, 0):
                values *= np.float32(slope)
                values += np.float32(intercept)
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0 or set(header.get_zooms()[:3]) != {1.0}
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"{path} has an affine that can't be inverted; repair its sform or qform.")
    affine[:3] *= NIFTI_UNITS.get(int(header["xyzt_units"]) % 8, 1.0)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if single is not None:
        values, spacing = values.squeeze(single), np.delete(spacing, single)
    if single is not None or len(shape) == 2:
        affine = plane_affine(*spacing[:2])
    return Picture(values, affine, spacing_known=known, coloured=coloured)


def _values_of(path: Path, start: int, shape: tuple[int, ...], stored: np.dtype) -> np.ndarray:
    """The stored values of a NIfTI file, checked against the length of the file, and with gzip against its checksum."""
    end = start + int(np.prod(shape, dtype=object)) * stored.itemsize
    size = os.path.getsize(path)
    if not path.name.lower().endswith(".gz"):
        check_stored(path, end, size)
        return np.memmap(path, stored, mode="r", offset=start, shape=shape, order="F")
    check_stored(path, end, size * DEFLATE_RATIO)
    with gzip.open(path) as file:
        file.read(start)
        content = file.read(end - start)
        file.read(2**20)  # up to the end, where the checksum is
    check_stored(path, end - start, len(content))
    return np.ndarray(shape, stored, content, order="F")


# ------------------------------------------------------------------------------------------------------------- NumPy


def _read_npz(path: Path, fragment: str, spatial_dims: int | None) -> Picture:
    split, mark, index = fragment.partition("/")
    if not mark or not index.isdecimal():
        raise InputError(f"Expected the split and number of an image, as in {path}#train/0, found {path}#{fragment}.")
    images = npz_array(path, f"{split}_images")
    if images.ndim < 3 or int(index) >= len(images):
        raise InputError(f"Expected image {index} in {split}_images of {path}, found an array of shape {images.shape}.")
    picture = _arranged(images[int(index)], path, spatial_dims)
    # MedMNIST has rows first: (H, W), (H, W, 3) and (D, H, W)
    return Picture(
        np.ascontiguousarray(np.swapaxes(picture.array, 0, picture.spatial_dims - 1)),
        picture.affine,
        coloured=picture.coloured,
    )


def _arranged(array: np.ndarray, path: str | Path, spatial_dims: int | None) -> Picture:
    """An array as it is; 3 or 4 values along the last axis are colours unless it has to be a volume."""
    if array.dtype.kind not in "buif":
        raise InputError(f"Expected an array of numbers, found {array.dtype} in {path}; save it as float32.")
    check_size(path, array.shape, array.dtype.itemsize)
    if spatial_dims == 2 and array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    coloured = array.ndim == 4 or (array.ndim == 3 and array.shape[-1] in (2, 3, 4) and spatial_dims != 3)
    if array.ndim - coloured not in (2, 3):
        raise InputError(f"Expected 2 or 3 axes and at most one of channels, found shape {array.shape} in {path}.")
    kept = array.astype(np.uint8) if array.dtype.kind == "b" else np.array(array)
    return Picture(kept, plane_affine(), coloured=coloured)
