# SPDX-License-Identifier: Apache-2.0
"""Measures the seconds it takes to read the headers of DICOM slices, scaled to 100,000.

    OMP_NUM_THREADS=1 python -m scripts.measure.headers [--slices 10000]

The slices are copies of pydicom's CT_small.dcm (258 elements) with 16 x 16 pixels, 100 to a series and folder, in a
temporary folder. Prints a line for each of three rounds: CPU and wall clock.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from dual_skd.data.reading.dicom_header import read_headers

SLICES_PER_SERIES = 100


def write_slices(folder: Path, count: int) -> list[Path]:
    """Writes ``count`` slices and returns their paths."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.Rows = dataset.Columns = 16
    dataset.PixelData = np.zeros((16, 16), np.int16).tobytes()
    paths = []
    for place in range(count):
        series, number = divmod(place, SLICES_PER_SERIES)
        if number == 0:
            dataset.SeriesInstanceUID = generate_uid()
            (folder / f"series{series}").mkdir()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.ImagePositionPatient, dataset.InstanceNumber = [0, 0, 2.0 * number], number + 1
        paths.append(folder / f"series{series}" / f"{number}.dcm")
        dataset.save_as(paths[-1])
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=10_000)
    count = parser.parse_args(arguments).slices
    with tempfile.TemporaryDirectory() as folder:
        paths = write_slices(Path(folder), count)
        for _ in range(3):
            cpu, wall = time.process_time(), time.perf_counter()
            headers = list(read_headers(paths))
            cpu, wall = (end - begin for end, begin in ((time.process_time(), cpu), (time.perf_counter(), wall)))
            scale = 100_000 / len(headers)
            print(f"100,000 headers: {cpu * scale:.1f} s of CPU, {wall * scale:.1f} s", flush=True)


if __name__ == "__main__":
    main()
