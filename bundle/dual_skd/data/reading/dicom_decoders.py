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
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL.JpegImagePlugin import JpegImageFile
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_fragments
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

from dual_skd.data.reading.dicom_file import syntax_of, unreadable_syntax
from dual_skd.errors import InputError

# start of frame: all processes of JPEG but the markers between them that mean other things, and JPEG-LS
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
DECODERS = ("libjpeg", "pyjpegls", "pylibjpeg", "pydicom", "pillow", "simpleitk")  # by preference
OF_EXTRA = ("pyjpegls", "pylibjpeg")  # those that an installation without "[dicom]" lacks
INSTALL = '`pip install ".[dicom]"` in the folder of this package'
BY_ITK = (JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit)  # where SimpleITK comes first
# what pydicom and SimpleITK put before the reason: the names of all decoders, and places on other machines
_PLACES = re.compile(
    r"Unable to decode as .+ plugins:\s*\w+:|Exception thrown in .+?:\d+:|ITK ERROR: \w+\(\w+\):", re.DOTALL
)
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
    while remaining:
        plugin = plugins[len(failures)]
        try:
            for frame in iter_pixels(
                dataset, indices=tuple(remaining), decoding_plugin=plugin, correct_unused_bits=False
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
    if syntax in JPEG2000TransferSyntaxes:
        _check_codestreams(dataset, path)
    elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        _check_frame_headers(dataset, path)
    return sorted(available, key="simpleitk".__ne__) if syntax in BY_ITK else available


def may_overshoot(dataset: Dataset) -> bool:
    """Whether decoded values may lie somewhat beyond BitsStored because the compression loses something."""
    syntax = syntax_of(dataset)
    if syntax in JPEG2000TransferSyntaxes:
        # coding style segment, whose last byte is 0 for the wavelet that isn't reversible (ISO/IEC 15444-1, A.6.1)
        wavelet = re.search(rb"\xff\x4f\xff\x51.*?\xff\x52\0.{10}(.)", dataset.PixelData, re.DOTALL)
        return wavelet is not None and wavelet[1] == b"\0"
    return syntax in (JPEGLSNearLossless, JPEGBaseline8Bit, JPEGExtended12Bit)


def _check_codestreams(dataset: Dataset, path: str | Path) -> None:
    """Refuses JPEG 2000 whose own size is not that of the header: decoders would allocate whatever it says."""
    # start of codestream, and its size segment of 1 to 4 components (ISO/IEC 15444-1, A.5.1)
    for found in re.finditer(rb"\xff\x4f\xff\x51\0[),/2]..(.{4})(.{4})(.{4})(.{4})", dataset.PixelData, re.DOTALL):
        right, bottom, left, top = (int.from_bytes(number, "big") for number in found.groups())
        _require_size(dataset, path, right - left, bottom - top)


def _check_frame_headers(dataset: Dataset, path: str | Path) -> None:
    """The same of JPEG and JPEG-LS, whose size stands in the frame header (ISO/IEC 10918-1, B.2.2; 14495-1, C.2.2)."""
    for fragment in generate_fragments(dataset.PixelData):
        place = 2 if fragment[:2] == b"\xff\xd8" else len(fragment)  # a fragment may go on with an image
        while place + 9 <= len(fragment) and fragment[place] == 0xFF and fragment[place + 1] != 0xDA:
            marker, length = fragment[place + 1], int.from_bytes(fragment[place + 2 : place + 4], "big")
            if marker == 0xFF:  # fill byte
                place += 1
                continue
            if marker in FRAME_MARKERS:
                rows, columns = (int.from_bytes(fragment[place + at : place + at + 2], "big") for at in (5, 7))
                if rows:  # 0 stands for a number that follows after the first scan
                    _require_size(dataset, path, columns, rows)
                break
            place += 2 + length


def _require_size(dataset: Dataset, path: str | Path, columns: int, rows: int) -> None:
    if (columns, rows) != (dataset.Columns, dataset.Rows):
        raise InputError(
            f"{path} is damaged: its header declares {dataset.Columns} x {dataset.Rows} pixels, its compressed "
            f"image {columns} x {rows}; copy the file again or leave it out."
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
