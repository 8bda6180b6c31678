# SPDX-License-Identifier: Apache-2.0
"""Which of pydicom's plugins decodes a compressed file, and one more plugin, for lossless and 12-bit JPEG.

GDCM's Python module is not used: it ends the process on some damaged files. SimpleITK, which has the same decoders
inside, raises an error for them.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders import JPEGExtended12BitDecoder, JPEGLosslessDecoder, JPEGLosslessSV1Decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    SecondaryCaptureImageStorage,
)

from dual_skd.errors import InputError

# start of frame: all processes of JPEG but the markers between them that mean other things, and JPEG-LS
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
DECODERS = ("simpleitk", "pylibjpeg", "pyjpegls", "pydicom", "pillow")  # by preference


def decoder_for(dataset: Dataset, path: str | Path) -> str:
    """The plugin that decodes a file, "" for uncompressed ones.

    Raises:
        InputError: the file has no pixels, nothing can decode it, or its parts contradict each other.
    """
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError(f"{path} has no pixel data: it is cut short or its images were removed; copy the file again.")
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError(
            f"{path} is compressed as {syntax.name}, which can't be read; convert it to plain or JPEG 2000 DICOM."
        ) from None
    if decoder.is_native:
        return ""
    available = [name for name in DECODERS if name in decoder.available_plugins]
    if not available:
        raise InputError(
            f"{path} is compressed as {syntax.name}, for which no decoder is installed; take one with "
            '`pip install ".[dicom]"` in the folder of this package, or decompress the file.'
        )
    if syntax in JPEG2000TransferSyntaxes:
        _check_codestreams(dataset, path)
    elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        _check_frame_headers(dataset, path)
    return available[0]


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
DECODER_DEPENDENCIES = dict.fromkeys((JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit), ("SimpleITK",))


def is_available(uid: str) -> bool:
    return uid in DECODER_DEPENDENCIES


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


for _decoder in (JPEGLosslessDecoder, JPEGLosslessSV1Decoder, JPEGExtended12BitDecoder):
    if DECODERS[0] not in _decoder.available_plugins:
        _decoder.add_plugin(DECODERS[0], (__name__, decode_frame.__name__))
