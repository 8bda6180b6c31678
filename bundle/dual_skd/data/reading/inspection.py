# SPDX-License-Identifier: Apache-2.0
"""Facts of files: what each is, whether training can use it, how it was stored."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from dual_skd.data.reading.dicom_header import read_header, read_headers
from dual_skd.data.reading.dicom_series import Series, group_series, volume_affine
from dual_skd.data.reading.formats import (
    DICOM,
    NIFTI,
    PIXEL_FORMATS,
    format_of,
    format_of_suffix,
    head_of,
    nifti_axes,
    not_read,
    program_in,
    same_reader,
    seems_whole,
)
from dual_skd.data.reading.grey import grey_of
from dual_skd.data.reading.locators import path_of, split_locator
from dual_skd.data.reading.nifti import read_nifti_header
from dual_skd.data.reading.pictures import opened, pages_of
from dual_skd.data.reading.reader import hounsfield_of, read_image
from dual_skd.errors import InputError, causes
from dual_skd.utils.progress import bar

COARSE = 8  # pixels per side of the picture that is kept to compare brightness between images
LUMINANCE_SUM = 3688  # of the standard's quantization table, ITU T.81, K.1
FILES_AT_A_TIME = 1024  # so that memory doesn't grow with their number

# kind of problem -> what to do about it
REMEDIES = {
    "missing": "restore the file, correct its path, or remove its entry",
    "empty": "copy the file again from its source, or remove it",
    "not_an_image": "remove it from the data set, or export the image again",
    "program": "don't run it; overwrite its first 128 bytes with zeros if you trust its source, or remove it",
    "truncated": "copy the file again from its source, or remove it",
    "unreadable": "export the image again, or remove it",
    "missing_slices": "export the whole series again, or remove it",
    "wrong_dims": "give the right --spatial-dims, or --frame for one of several slices, or remove it",
    "not_finite": "export the image again without NaN or infinite values, or remove it",
    "constant": "remove it: there is nothing in it to learn from",
}

_OF_HEADER = ("modality", "manufacturer", "institution", "photometric", "transfer_syntax", "mosaic")
_BITS = {"1": 1, "L": 8, "P": 8, "PA": 8, "LA": 8, "RGB": 8, "RGBA": 8, "CMYK": 8, "YCbCr": 8, "I": 32, "F": 32}
# kind of problem -> how readers word it
_PROBLEMS = (
    ("missing_slices", re.compile(r"slices? (is|are) missing")),
    ("wrong_dims", re.compile(r"spatial_dims|spatial axes")),
    (
        "truncated",
        re.compile(r"truncat|end.of.(file|stream|data)|\beof\b|incomplete|cut short|declares .+ bytes", re.IGNORECASE),
    ),
)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known about one image; everything but ``image`` may be unknown ("" or None).

    Args:
        image: its locator, as in the records.
        problem: a key of :data:`REMEDIES` when training can't use it, else "".
        detail: the problem in words.
        remedy: what to do about it.
        format: what the content is ("PNG", "DICOM", ...), whatever the name says.
        mode: how pixels are stored: "L", "RGB", "RGBA", "I;16", "MONOCHROME2", "uint16", ...
        bits: bits per stored value.
        shape: (W, H) or (X, Y, Z) as training reads it.
        aspect: width divided by height, of volumes extent from left to right by that from back to front; in mm where
            the file says.
        frames: pictures in the file, or slices of the series.
        jpeg_quality: of JPEG pictures, on the scale of libjpeg (100 is best; below 25 it is a guess).
        minimum, maximum, mean, std: of the grey values, in the image's units (HU for CT).
        commonest: share of the pixels that have the most frequent value.
        saturated: share of the pixels that have the highest value.
        hounsfield: whether the values are Hounsfield units, None where nothing tells.
        modality, manufacturer, institution, photometric, transfer_syntax: from the DICOM header.
        spacing: mm along each axis, None when the file doesn't say.
        orientation: axis codes such as "RAS" of a volume that has a place in space, "LP" of a slice.
        series_problems: what is odd about a DICOM series (missing slices, gantry tilt, ...).
        mosaic: whether a DICOM image holds the slices of a volume side by side.
        coarse: 8 x 8 block means scaled to 0..255, one byte each, to compare images with one another.
    """

    image: str
    problem: str = ""
    detail: str = ""
    remedy: str = ""
    format: str = ""
    mode: str = ""
    bits: int | None = None
    shape: tuple[int, ...] = ()
    aspect: float | None = None
    frames: int | None = None
    jpeg_quality: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    commonest: float | None = None
    saturated: float | None = None
    hounsfield: bool | None = None
    modality: str = ""
    manufacturer: str = ""
    institution: str = ""
    photometric: str = ""
    transfer_syntax: str = ""
    spacing: tuple[float, ...] | None = None
    orientation: str = ""
    series_problems: tuple[str, ...] = ()
    mosaic: bool = False
    coarse: bytes = b""


def inspect(image: str, spatial_dims: int = 2, *, also: Callable[[str, np.ndarray], None] | None = None) -> FileFacts:
    """The facts of one image, decoded as training does; what is wrong becomes ``problem`` and ``detail``.

    Args:
        image: a locator: a file, a folder with a DICOM series, or either with a "#fragment".
        spatial_dims: 2 for images, 3 for volumes.
        also: called with a usable image and its grey values, (W, H) or (X, Y, Z), so that it is decoded once only.
    """
    facts, _ = _look(image)
    if facts.problem:
        return facts
    try:
        facts = _with_header(facts)
        array, meta = read_image(image, spatial_dims=spatial_dims)
        grey = grey_of(array, meta).numpy()
    except Exception as error:  # a check goes on to the next file, whatever a decoder raises
        return _bad(facts, *_problem_of(error, image))
    facts = _with_geometry(facts, grey, meta)
    if not facts.mode:
        facts = replace(facts, mode=str(array.dtype), bits=array.dtype.itemsize * 8)
    if grey.ndim != spatial_dims:
        found = " x ".join(map(str, grey.shape))
        return _bad(facts, "wrong_dims", f"it has {grey.ndim} axes ({found}), not {spatial_dims}")
    facts = _with_values(facts, grey)
    if also and not facts.problem:
        also(image, grey)
    return facts


def inspect_all(
    images: Iterable[str],
    spatial_dims: int = 2,
    *,
    workers: int | None = None,
    also: Callable[[str, np.ndarray], None] | None = None,
) -> dict[str, FileFacts]:
    """:func:`inspect` of every image once, in ``workers`` threads, by default one per processor; they call ``also``."""
    inspect_one = partial(inspect, spatial_dims=spatial_dims, also=also)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what is reported here, a line per file
        return {facts.image: facts for facts in _in_parallel(inspect_one, images, workers)}


def quick_facts(image: str, spatial_dims: int = 2) -> FileFacts:
    """The facts that header and size give; an image where these look wrong is decoded.

    Each problem is one that :func:`inspect` finds too, but damaged pixels go unseen.
    """
    facts, suspicious = _look(image, spatial_dims)
    return inspect(image, spatial_dims) if suspicious and not facts.problem else facts


def quick_facts_of_all(images: Iterable[str], spatial_dims: int = 2, *, workers: int | None = None) -> list[FileFacts]:
    """:func:`quick_facts` of one image per file: the images of an archive stand or fall together."""
    first_of_file: dict[str, str] = {}
    for image in images:
        first_of_file.setdefault(split_locator(image)[0].as_posix(), image)
    return list(_in_parallel(partial(quick_facts, spatial_dims=spatial_dims), first_of_file.values(), workers))


def _in_parallel(
    function: Callable[[str], FileFacts], images: Iterable[str], workers: int | None
) -> Iterator[FileFacts]:
    unique = list(dict.fromkeys(images))
    remaining = iter(unique)
    with (
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
        bar(None, "Opening images", len(unique)) as opened,
    ):
        while batch := list(islice(remaining, FILES_AT_A_TIME)):
            for facts in pool.map(function, batch):
                opened.update()
                yield facts


# ------------------------------------------------------------------------------------------------- without decoding


def _look(image: str, spatial_dims: int | None = None) -> tuple[FileFacts, bool]:
    """Facts from the first and last bytes, and whether these look wrong, so that a decoder has to decide."""
    path = path_of(image)
    facts = FileFacts(image=str(image))
    if not path.exists():
        return _bad(facts, "missing", "there is no such file"), True
    try:
        files = [path] if path.is_file() else _files_of(path)
        if not files:
            return _bad(facts, "empty", "the folder has no files"), True
        heads = ((file, file.stat().st_size, head_of(file)) for file in files)
        if path.is_dir():
            return _look_at_series(facts, heads)
        _, size, head = next(heads)
    except OSError as error:
        return _bad(facts, "unreadable", f"the file can't be opened ({error.strerror})"), True
    if size == 0:
        return _bad(facts, "empty", "the file has 0 bytes"), True
    kind = format_of(head, path)
    facts = replace(facts, format=kind)
    detail, remedy = not_read(kind)
    if detail:
        return _bad(facts, "not_an_image", detail, remedy), True
    if program := program_in(head):
        return _bad(facts, "program", f"the file begins like a {program}, and is DICOM too"), True
    # readers go by the name, and take files without a known suffix for DICOM
    suspicious = not same_reader(kind, format_of_suffix(path) or DICOM) or not seems_whole(path, kind, head, size)
    if spatial_dims == 3:
        suspicious |= kind in PIXEL_FORMATS
    if kind == NIFTI and spatial_dims:
        suspicious |= nifti_axes(head) != spatial_dims
    return facts, suspicious


def _look_at_series(facts: FileFacts, heads: Iterable[tuple[Path, int, bytes]]) -> tuple[FileFacts, bool]:
    kinds = []
    for path, size, head in heads:
        if program := program_in(head):
            return _bad(facts, "program", f"{path.name} begins like a {program}, and is DICOM too"), True
        kinds.append((format_of(head, path), size > 0 and seems_whole(path, DICOM, head, size)))
    whole = [good for kind, good in kinds if kind == DICOM]
    if not whole:
        return _bad(facts, "not_an_image", "no file in the folder is DICOM"), True
    return replace(facts, format=DICOM), not all(whole)


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


# ---------------------------------------------------------------------------------------------------- with decoding


def _with_header(facts: FileFacts) -> FileFacts:
    path = path_of(facts.image)
    if facts.format in PIXEL_FORMATS:
        with opened(path) as picture:
            bits = _BITS.get(picture.mode, 16 if picture.mode.startswith("I;16") else None)
            quality = _jpeg_quality(getattr(picture, "quantization", {}))
            frames = pages_of(picture, path)
            return replace(facts, mode=picture.mode, bits=bits, frames=frames, jpeg_quality=quality)
    if facts.format == NIFTI:
        header = read_nifti_header(path)
        kind, placed = header.get_data_dtype(), header["qform_code"] or header["sform_code"]
        codes = nibabel.aff2axcodes(header.get_best_affine())
        plane = [code for code, size in zip(codes, header.get_data_shape(), strict=False) if size > 1]
        orientation = "".join(map(str, plane[:2])) if placed else ""
        return replace(facts, mode=str(kind), bits=kind.itemsize * 8, frames=1, orientation=orientation)
    if facts.format != DICOM:
        return facts
    series = None if path.is_file() else _series_of(facts.image)
    header = series.headers[0] if series else read_header(path)
    return replace(
        facts,
        mode=header.photometric,
        bits=header.bits_stored,
        frames=len(series.headers) if series else header.frames,
        **{name: getattr(header, name) for name in _OF_HEADER},
        orientation="".join(nibabel.aff2axcodes(volume_affine((header,))[0])[:2]) if header.orientation else "",
        series_problems=series.problems if series else (),
    )


def _jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """The quality that scales the standard's table of luminance (ITU T.81, K.1) as libjpeg does to a file's first."""
    if 0 not in tables:
        return None
    percent = 100 * sum(tables[0]) / LUMINANCE_SUM
    return max(round(100 - percent / 2 if percent <= 100 else 5000 / percent), 1)


def _series_of(image: str) -> Series:
    """The largest series of a folder, or the one that folder#UID names."""
    folder, uid = split_locator(image)
    headers = [header for header in read_headers(_files_of(folder), workers=1) if not isinstance(header, InputError)]
    series = [one for one in group_series(headers) if uid in ("", one.uid, one.headers[0].series)]
    if not series:
        raise InputError(f"{image} has no DICOM series{' ' + uid if uid else ''}; correct the path.")
    return max(series, key=lambda one: len(one.headers))


def _with_geometry(facts: FileFacts, grey: np.ndarray, meta: Mapping[str, object]) -> FileFacts:
    facts = replace(facts, hounsfield=hounsfield_of(meta))
    affine = np.asarray(meta["affine"], dtype=float)
    lengths = np.linalg.norm(affine[:3, : grey.ndim], axis=0)
    extent, known = lengths * grey.shape, meta["spacing_known"]
    if grey.ndim == 3:
        extent = extent[np.argsort(nibabel.io_orientation(affine)[:, 0])]
        axes = "".join(map(str, nibabel.aff2axcodes(affine)))
        facts = replace(facts, orientation=axes if known else "")
    return replace(
        facts,
        shape=tuple(map(int, grey.shape)),
        aspect=float(extent[0] / extent[1]),
        spacing=tuple(round(float(length), 4) for length in lengths) if known else None,
    )


def _with_values(facts: FileFacts, grey: np.ndarray) -> FileFacts:
    if infinite := int(grey.size - np.isfinite(grey).sum()):
        return _bad(facts, "not_finite", f"{infinite} of {grey.size} values are NaN or infinite")
    low, high = float(grey.min()), float(grey.max())
    facts = replace(facts, minimum=low, maximum=high)
    if low == high:
        return _bad(facts, "constant", f"every pixel has the value {low:g}")
    return replace(
        facts,
        mean=float(grey.mean()),
        std=float(grey.std()),
        commonest=_commonest(grey, low, high),
        saturated=float((grey == high).mean()),
        coarse=_coarse(grey),
    )


def _commonest(grey: np.ndarray, low: float, high: float) -> float:
    """Share of the most frequent value; among 65,536 pixels, drawn at random, where values are not whole numbers."""
    # grey stored as RGB comes back a rounding error beside its whole number
    if 0.5 < high - low < 2**16 and np.abs(grey - (whole := np.rint(grey))).max() < 1e-3:
        return float(np.bincount((whole - whole.min()).astype(np.int64).ravel()).max() / grey.size)
    values = grey.ravel()
    if values.size > 2**16:  # drawn, since every n-th might lie in one slice of a volume
        values = values[np.random.default_rng(0).integers(values.size, size=2**16)]
    return float(np.unique(values, return_counts=True)[1].max() / values.size)


def _coarse(grey: np.ndarray) -> bytes:
    view = grey if grey.ndim == 2 else grey[:, :, grey.shape[2] // 2]
    picture = Image.fromarray(np.ascontiguousarray(view, dtype=np.float32))
    small = np.asarray(picture.resize((COARSE, COARSE), Image.Resampling.BOX))
    extent = float(small.max() - small.min())
    return np.rint((small - small.min()) * (255 / extent if extent > 0 else 0)).astype(np.uint8).tobytes()


def _bad(facts: FileFacts, problem: str, detail: str, remedy: str = "") -> FileFacts:
    return replace(facts, problem=problem, detail=detail, remedy=remedy or REMEDIES[problem])


def _problem_of(error: BaseException, image: str) -> tuple[str, str, str]:
    """(kind, detail, remedy) of what a reader raised; readers say "what is wrong; what to do."."""
    chain = list(causes(error))
    message = " ".join(map(str, chain)).replace(str(path_of(image)), "")  # a name says nothing of the problem
    kinds = (kind for kind, pattern in _PROBLEMS if pattern.search(message))
    kind = next(kinds, "truncated" if any(isinstance(one, EOFError) for one in chain) else "unreadable")
    words = " ".join(str(error).split()) or type(error).__name__
    for name in (str(image), str(path_of(image))):  # every report names the file anyway
        words = words.replace(name, Path(name).name)
    detail, mark, remedy = words.removesuffix(".").rpartition("; ")
    return (kind, detail, remedy) if mark else (kind, remedy, "")
