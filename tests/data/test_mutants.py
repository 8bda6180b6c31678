# SPDX-License-Identifier: Apache-2.0
"""1,000 damaged files: each is read or refused by name, within time and memory, and none ends the process."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

COUNT = 1000
SECONDS = 10
GIBIBYTES = 2


def originals(folder: Path, write_dicom) -> dict[str, bytes]:
    """One intact file of every kind, by file name."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(36) * 40, np.arange(40) * 30).astype(np.uint16) + rng.integers(
        0, 9, (36, 40), np.uint16
    )
    found = {}
    for name, picture in {"l.png": smooth // 12, "deep.png": smooth, "a.jpg": smooth // 12, "a.tif": smooth}.items():
        depth = np.uint16 if name in ("deep.png", "a.tif") else np.uint8
        buffer = io.BytesIO()
        Image.fromarray(picture.astype(depth)).save(buffer, {"jpg": "JPEG", "tif": "TIFF", "png": "PNG"}[name[-3:]])
        found[name] = buffer.getvalue()
    volume = nibabel.Nifti1Image(np.stack([smooth] * 6, axis=2).astype(np.int16), np.diag([2.0, 2, 3, 1]))
    found["a.nii"] = volume.to_bytes()
    found["a.nii.gz"] = gzip.compress(found["a.nii"])
    tags = {"PixelSpacing": [0.7, 0.5], "RescaleSlope": 1, "RescaleIntercept": -1024, "WindowWidth": 400}
    for name, syntax in {"plain": None, "rle": RLELossless, "j2k": JPEG2000Lossless, "jls": JPEGLSLossless}.items():
        dicom = pydicom.dcmread(write_dicom(folder / "original", np.stack([smooth] * 3), NumberOfFrames=3, **tags))
        if syntax:
            dicom.compress(syntax)
        dicom.save_as(folder / "original")
        found[f"{name}.dcm"] = (folder / "original").read_bytes()
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(folder / "original.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(smooth))
    found["jpeg.dcm"] = (folder / "original.dcm").read_bytes()
    return found


def mutant(content: bytes, rng: np.random.Generator) -> bytes:
    """Flips bits of the header or anywhere, cuts the file short, overwrites a stretch, or leaves nothing."""
    kind = rng.choice(["header", "body", "cut", "stretch", "nothing"], p=[0.4, 0.3, 0.2, 0.09, 0.01])
    if kind == "nothing":
        return b""
    if kind == "cut":
        return content[: rng.integers(1, len(content))]
    changed = bytearray(content)
    if kind == "stretch":
        start = int(rng.integers(len(content)))
        changed[start : start + 16] = rng.bytes(len(changed[start : start + 16]))
        return bytes(changed)
    end = min(1200, len(content)) if kind == "header" else len(content)
    for place in rng.integers(0, end, rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def test_a_thousand_mutants_are_read_or_refused_by_name_within_time_and_memory(tmp_path, dicom_file):
    rng = np.random.default_rng(20240229)
    sources = originals(tmp_path, dicom_file)
    names = list(sources)
    for index in range(COUNT):
        name = names[index % len(names)]
        (tmp_path / f"{index:04d}_{name}").write_bytes(mutant(sources[name], rng))
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["unnamed"] == [] and found["slow"] == []
    assert found["read"] + found["refused"] == COUNT
    # damage to pixels can go unseen, damage to headers and lengths can't
    assert found["refused"] > COUNT / 4 and found["read"] > COUNT / 10
    assert found["gibibytes"] < GIBIBYTES
    assert len(done.stderr.splitlines()) < 100, done.stderr[:3000]  # libraries don't flood the log


def read_all(folder: str) -> None:
    """Reads every file of a folder in a process that may not take more memory, and prints what happened."""
    from dual_skd.data.reading.reader import read_image
    from dual_skd.errors import InputError

    found = {"read": 0, "refused": 0, "unnamed": [], "slow": []}
    for path in sorted(Path(folder).glob("[0-9]*")):
        start = time.perf_counter()
        try:
            read_image(path)
            found["read"] += 1
        except InputError as error:
            found["refused"] += 1
            if path.name not in str(error):
                found["unnamed"].append(str(error))
        if time.perf_counter() - start > SECONDS:
            found["slow"].append(path.name)
    found["gibibytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    read_all(sys.argv[1])
