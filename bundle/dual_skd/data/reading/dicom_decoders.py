# SPDX-License-Identifier: Apache-2.0
"""Decoders of compressed DICOM: the order of pydicom's plugins, and two more of them.

One uses SimpleITK for lossless and 12-bit JPEG, and for JPEG-LS that others can't decode. GDCM's Python module isn't
used: it ends the process on some damaged files. SimpleITK has the same decoders inside, and raises an error.

The other uses Pillow for 8-bit JPEG. pydicom's own goes wrong where a JPEG image has other colours than
PhotometricInterpretation says.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from PIL.JpegImagePlugin import JpegImageFile
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    SecondaryCaptureImageStorage,
)

from dual_skd.data.reading.codestreams import (
    Declared,
    check_j2k,
    check_scans,
    is_lossy_j2k,
    j2k_code,
    j2k_header,
    jpeg_code,
    jpeg_header,
)
from dual_skd.data.reading.dicom_file import frames_of, syntax_of, unreadable_syntax
from dual_skd.data.reading.refusals import check_stored
from dual_skd.errors import InputError

DECODERS = ("libjpeg", "pyjpegls", "pylibjpeg", "pydicom", "pillow", "simpleitk")  # by preference
OF_EXTRA = ("pyjpegls", "pylibjpeg")  # those that an installation without "[dicom]" lacks
INSTALL = '`pip install ".[dicom]"` in the folder of this package'
BY_ITK = (JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit)  # where SimpleITK comes first
# what pydicom and SimpleITK put before the reason: the names of all decoders, and places on other machines
_PLACES = re.compile(
    r"Unable to decode as .+ plugins:\s*\w+:|Exception thrown in .+?:\d+:|ITK ERROR: \w+\(\w+\):", re.DOTALL
)
MAX_COMPONENTS = 4  # of a compressed image: colours and a transparency
_OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
RGB_IDS = [82, 71, 66]  # component ids of a JPEG image that spell RGB

# what a decoder raises reaches the caller where no other one does better
logging.getLogger("pydicom.pixels.decoders.base").addFilter(lambda record: record.exc_info is None)


def decoded(dataset: Dataset, path: str | Path, plugins: Sequence[str], indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Frames as they are stored, all bits of them, in RGB where they are coloured.

    What one of the ``plugins`` can't decode is left to the next one.

    Raises:
        InputError: all fail at a compressed frame; it says why the first did. Other errors are passed on.
    """
    remaining = list(indices)
    failures: list[Exception] = []
    tables: dict[str, Any] = {"extended_offsets": _join_fragments(dataset, path)} if plugins[0] else {}
    while remaining:
        plugin = plugins[len(failures)]
        try:
            for frame in iter_pixels(
                dataset, indices=tuple(remaining), decoding_plugin=plugin, correct_unused_bits=False, **tables
            ):
                yield frame
                del remaining[0]
        except Exception as error:  # decoders raise anything
            failures.append(error)
            if len(failures) == len(plugins):
                raise _undecodable(dataset, path, plugins, failures[0]) if plugins[0] else failures[0] from None


def _undecodable(dataset: Dataset, path: str | Path, plugins: Sequence[str], error: Exception) -> InputError:
    syntax = UID(syntax_of(dataset))
    lacks = syntax in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes) and not {*OF_EXTRA} & {*plugins}
    more = f"take another decoder ({INSTALL}), " if lacks else ""
    reason = " ".join(_PLACES.sub("", str(error)).split())[:300] or type(error).__name__
    return InputError(
        f"{path} can't be decoded: its {syntax.name} is damaged, or of a kind that no decoder here reads "
        f"({plugins[0]}: {reason}); {more}copy the file again, or export it uncompressed."
    )


def decoders_for(dataset: Dataset, path: str | Path) -> list[str]:
    """The plugins that may decode a file, the best one first; [""] for uncompressed ones.

    Raises:
        InputError: the file has no pixels, nothing can decode it, or its parts contradict each other.
    """
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError(f"{path} has no pixel data: it is cut short or its images were removed; copy the file again.")
    syntax = UID(syntax_of(dataset))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise unreadable_syntax(path, syntax) from None
    if decoder.is_native:
        return [""]
    available = [name for name in DECODERS if name in decoder.available_plugins]
    if not available:
        raise InputError(
            f"{path} is compressed as {syntax.name}, for which no decoder is installed; take one ({INSTALL}), or "
            "export the file uncompressed."
        )
    return sorted(available, key="simpleitk".__ne__) if syntax in BY_ITK else available


def may_overshoot(dataset: Dataset) -> bool:
    """Whether decoded values may lie somewhat beyond BitsStored because the compression loses something."""
    syntax = syntax_of(dataset)
    if syntax in JPEG2000TransferSyntaxes:
        return is_lossy_j2k(j2k_code(dataset.PixelData))
    return syntax in (JPEGLSNearLossless, JPEGBaseline8Bit, JPEGExtended12Bit)


def _join_fragments(dataset: Dataset, path: str | Path) -> tuple[list[int], list[int]]:
    """Leaves one fragment per frame in the data set, whose headers were checked, and says where they are.

    Decoders then see what was checked, and pydicom need not look for every frame from the beginning.

    Returns:
        Offsets and lengths as in an Extended Offset Table.

    Raises:
        InputError: a frame has another size than the data set says, or would take too much memory.
    """
    frames: list[bytes] = []
    syntax, total = UID(syntax_of(dataset)), 0
    tables: Any = tuple(dataset.pop(keyword).value if keyword in dataset else None for keyword in _OFFSET_TABLES)
    every = generate_frames(
        dataset.PixelData, number_of_frames=frames_of(dataset), extended_offsets=tables if all(tables) else None
    )
    for frame in islice(every, frames_of(dataset)):
        total += len(frame)
        check_stored(path, total, len(dataset.PixelData))  # frames that overlap
        if syntax in JPEG2000TransferSyntaxes:
            if frame := j2k_code(frame):
                _require_size(dataset, path, j2k_header(frame))
                check_j2k(path, frame)
        elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
            frame = jpeg_code(frame)
            if declared := jpeg_header(frame):
                _require_size(dataset, path, declared)
                check_scans(path, frame, declared.columns * declared.rows * declared.components)
        if not frame:
            raise InputError(
                f"{path} is damaged: frame {len(frames)} is empty or holds no {syntax.name}; copy the file again or "
                "leave it out."
            )
        frames.append(frame)
    dataset.PixelData = encapsulate(frames, has_bot=False) if frames else b""
    lengths = [len(frame) + len(frame) % 2 for frame in frames]
    return [0, *accumulate(length + 8 for length in lengths[:-1])], lengths


def _require_size(dataset: Dataset, path: str | Path, declared: Declared) -> None:
    size = (dataset.Columns, dataset.Rows)
    if declared.rows and declared[:2] != size:
        raise InputError(
            f"{path} is damaged: its header declares {size[0]} x {size[1]} pixels, its compressed "
            f"image {declared.columns} x {declared.rows}; copy the file again or leave it out."
        )
    if declared.components > MAX_COMPONENTS:
        raise InputError(
            f"{path} is damaged: its compressed image has {declared.components} components, colours have 3; copy the "
            "file again or leave it out."
        )


# the names that pydicom looks for in a plugin
DECODER_DEPENDENCIES: dict[UID, tuple[str, ...]] = {
    **dict.fromkeys((*BY_ITK, JPEGLSLossless, JPEGLSNearLossless), ("SimpleITK",)),
    JPEGBaseline8Bit: ("Pillow",),
}


def is_available(uid: str) -> bool:
    return uid in DECODER_DEPENDENCIES


def decode_jpeg(src: bytes, runner: DecodeRunner) -> bytes:
    """Decodes one frame of 8-bit JPEG, and tells pydicom what its colours are, whatever PhotometricInterpretation says.

    libjpeg's own rule decides (``default_decompress_parms`` in jdapimin.c): colours are RGB or YCbCr as Adobe's marker
    says, YCbCr with JFIF's marker, and without both by the component ids: 1, 2, 3 are YCbCr, R, G, B are RGB. Less
    chroma than luma is YCbCr, too. Other ids say nothing, and PhotometricInterpretation holds.
    """
    with JpegImageFile(BytesIO(src)) as image:
        if runner.samples_per_pixel == 3:
            ids, sampling = [layer[0] for layer in image.layer], {layer[1:3] for layer in image.layer}
            if "adobe_transform" in image.info or (ids == RGB_IDS and "jfif" not in image.info):
                runner.set_option("photometric_interpretation", "RGB")  # to which Pillow converts
            else:
                image.draft("YCbCr", image.size)  # keeps the components as they are
                if "jfif" in image.info or ids == [1, 2, 3] or len(sampling) > 1:
                    runner.set_option("photometric_interpretation", "YBR_FULL")
        return image.tobytes()


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decodes one frame: SimpleITK reads files only, so that the frame goes through a temporary one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, runner.transfer_syntax
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dicom = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dicom.Rows, dicom.Columns, dicom.SamplesPerPixel = runner.rows, runner.columns, runner.samples_per_pixel
    dicom.PhotometricInterpretation = "MONOCHROME2" if runner.samples_per_pixel == 1 else "RGB"
    if runner.samples_per_pixel > 1:
        dicom.PlanarConfiguration = 0
        runner.set_option("planar_configuration", 0)
    dicom.BitsAllocated, dicom.BitsStored = runner.bits_allocated, runner.bits_stored
    dicom.HighBit, dicom.PixelRepresentation = runner.bits_stored - 1, runner.pixel_representation
    dicom.PixelData = encapsulate([src])
    dicom["PixelData"].is_undefined_length = True
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        dicom.save_as(file, enforce_file_format=True)
        file.flush()
        values = sitk.GetArrayFromImage(sitk.ReadImage(file.name, imageIO="GDCMImageIO"))
    return np.ascontiguousarray(values.astype(runner.pixel_dtype)).tobytes()


for _syntax, _needed in DECODER_DEPENDENCIES.items():
    _name, _function = ("simpleitk", decode_frame) if _needed == ("SimpleITK",) else ("libjpeg", decode_jpeg)
    if _name not in get_decoder(_syntax).available_plugins:
        get_decoder(_syntax).add_plugin(_name, (__name__, _function.__name__))
