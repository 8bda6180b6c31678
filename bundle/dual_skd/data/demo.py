# SPDX-License-Identifier: Apache-2.0
"""Generated demo data, medically shaped: chest-like X-rays as DICOM files and head-like volumes as NIfTI files.

Nothing here is, or derives from, a real image. What a class is can't be told from how bright an image is: every image
is shifted and scaled to a mean and a deviation drawn from the same distribution, whatever its class. A network has to
find the nodule, the texture or the wide ventricles.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dual_skd.data.reading.locators import expanded
from dual_skd.errors import InputError

VERSION = 3
MARKER = "demo.json"
DEMO_NAMES = {"demo": 2, "demo3d": 3}  # words for a dataset_dir, and their spatial dimensions
CLASSES_2D = ("interstitial", "normal", "nodule")
CLASSES_3D = ("atrophy", "lesion", "normal")
COUNTS_2D = {"train": 360, "val": 90, "test": 120}
COUNTS_3D = {"train": 96, "val": 33, "test": 48}
SIZE_2D = (128, 128)  # rows, columns
SIZE_3D = (48, 48, 24)  # x (right), y (anterior), z (superior)
SPACING_2D = (2.5, 2.5)  # mm
SPACING_3D = (4.0, 4.0, 7.0)  # mm
OFFSET_3D = 1000  # of all values, so that none is below 0, as in MR; far below it is the air of a CT


@dataclass(frozen=True)
class _Image:
    """One image to make: where it goes, what it shows, and the numbers that its randomness starts from."""

    name: str
    label: str
    split: str
    patient: str
    seeds: tuple[int, int]  # of the patient's anatomy, of the exposure


def write_demo(
    directory: str | Path, *, spatial_dims: int = 2, seed: int = 0, counts: Mapping[str, int] | None = None
) -> Path:
    """Writes the demo data, or reuses what an earlier call with equal arguments wrote.

    Args:
        directory: new folder, or one written by this function.
        spatial_dims: 2 for 128 x 128 DICOM X-rays (12 bits stored in 16, about a third MONOCHROME1), classes
            interstitial / normal / nodule; 3 for 48 x 48 x 24 NIfTI volumes, classes atrophy / lesion / normal.
        seed: seed of everything; equal seeds give equal files.
        counts: images per split; default 360 / 90 / 120 in 2D and 96 / 33 / 48 in 3D.

    Returns:
        The folder, with ``datalist.csv`` (image, label, split, patient) and the folder ``images``.

    Raises:
        InputError: when the folder holds something else, so that nothing of the user's is ever overwritten.
    """
    if spatial_dims not in (2, 3):
        raise InputError(f"spatial_dims must be 2 or 3, found {spatial_dims}.")
    directory = expanded(directory)
    counts = dict(counts or (COUNTS_2D if spatial_dims == 2 else COUNTS_3D))
    marker = {"version": VERSION, "spatial_dims": spatial_dims, "seed": seed, "counts": counts}
    if directory.is_dir() and any(directory.iterdir()):
        if not (directory / MARKER).is_file():
            raise InputError(f"{directory} is not empty and holds no demo data; give a new folder for the demo data.")
        if _holds(directory, marker):
            return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    # written beside and moved in one step: a run that is interrupted leaves nothing half made
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        target = Path(scratch) / "demo"
        (target / "images").mkdir(parents=True)
        plan = _plan(spatial_dims, seed, counts)
        write: Callable[[Path, _Image], None] = _write_xray if spatial_dims == 2 else _write_head
        for image in plan:
            write(target / image.name, image)
        with (target / "datalist.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", "label", "split", "patient"])
            table.writerows([image.name, image.label, image.split, image.patient] for image in plan)
        (target / MARKER).write_text(json.dumps(marker), encoding="utf-8")
        if _holds(directory, marker):  # another process of the same run was faster
            return directory
        if directory.exists():
            shutil.rmtree(directory)
        try:
            target.rename(directory)
        except OSError:
            if not _holds(directory, marker):
                raise
    return directory


def of_demo(path: str | Path) -> bool:
    """Whether a path is that of demo data, or the word that stands for them."""
    if str(path) in DEMO_NAMES:
        return True
    path = Path(path).expanduser().absolute()
    return any((folder / MARKER).is_file() for folder in (path, *path.parents))


def _holds(directory: Path, marker: dict) -> bool:
    path = directory / MARKER
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == marker


def _plan(spatial_dims: int, seed: int, counts: Mapping[str, int]) -> list[_Image]:
    """Patients with one to three images each, of one class, never in two splits."""
    classes = CLASSES_2D if spatial_dims == 2 else CLASSES_3D
    suffix, most = (".dcm", 3) if spatial_dims == 2 else (".nii.gz", 1)
    rng = np.random.default_rng([seed, spatial_dims])
    images: list[_Image] = []
    patient = 0
    for split, total in counts.items():
        for place, label in enumerate(classes):
            wanted = total // len(classes) + (place < total % len(classes))
            while wanted > 0:
                patient += 1
                for view in range(min(int(rng.integers(1, most + 1)), wanted)):
                    name = f"images/P{patient:04d}_{view + 1}{suffix}"
                    seeds = (seed * 100_003 + patient, view)
                    images.append(_Image(name, label, split, f"P{patient:04d}", seeds))
                    wanted -= 1
    return images


# ----------------------------------------------------------------------------------------------- shapes, any dimension


def _coordinates(size: tuple[int, ...]) -> list[np.ndarray]:
    """Voxel centres from -1 to 1 along every axis."""
    axes = [(np.arange(n) + 0.5) / n * 2 - 1 for n in size]
    return list(np.meshgrid(*axes, indexing="ij"))


def _ellipsoid(grid: list[np.ndarray], centre, radii, softness: float = 0.08) -> np.ndarray:
    """1 inside, 0 outside, with a soft edge ``softness`` wide in units of the radius."""
    distance = np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True)))
    return 1 / (1 + np.exp(np.clip((distance - 1) / softness, -30, 30)))


def _smooth_noise(rng: np.random.Generator, size: tuple[int, ...], width: float) -> np.ndarray:
    """Gaussian noise with unit deviation, correlated over about ``width`` voxels (filtered in Fourier space)."""
    frequencies = np.meshgrid(*[np.fft.fftfreq(n) for n in size], indexing="ij")
    transfer = np.exp(-2 * (np.pi * width) ** 2 * sum(f**2 for f in frequencies))
    noise = np.fft.ifftn(np.fft.fftn(rng.standard_normal(size)) * transfer).real
    return (noise - noise.mean()) / noise.std()


def _level(image: np.ndarray, rng: np.random.Generator, *, mean: float, deviation: float) -> np.ndarray:
    """Sets mean and deviation to values drawn independently of the class."""
    image = (image - image.mean()) / image.std()
    return image * deviation * rng.uniform(0.8, 1.2) + mean * rng.uniform(0.8, 1.2)


# ------------------------------------------------------------------------------------------------------ chest X-rays


def chest_xray(label: str, *, anatomy_seed: int, view_seed: int = 0, size: tuple[int, int] = SIZE_2D) -> np.ndarray:
    """Draws one chest-like X-ray, bright where dense.

    Args:
        label: "normal", "nodule" (one round lesion in a lung) or "interstitial" (fine streaks in both lungs).
        anatomy_seed: what a patient keeps from view to view.
        view_seed: position, exposure and noise of one view.
        size: rows and columns.

    Returns:
        (H, W) uint16, 12 bits used.
    """
    body = np.random.default_rng([anatomy_seed, 11])
    view = np.random.default_rng([anatomy_seed, 22, view_seed])
    y, x = _coordinates(size)
    # the view: small turn, shift and magnification of the patient
    turn, zoom = np.deg2rad(view.uniform(-5, 5)), view.uniform(0.93, 1.07)
    dy, dx = view.uniform(-0.06, 0.06, 2)
    y, x = zoom * (np.cos(turn) * y - np.sin(turn) * x) + dy, zoom * (np.sin(turn) * y + np.cos(turn) * x) + dx
    grid = [y, x]

    def draw(low: float, high: float) -> float:
        return float(body.uniform(low, high))

    image = 0.9 * _ellipsoid(grid, (draw(0.1, 0.25), 0), (draw(1.0, 1.3), draw(0.8, 1.0)), 0.06)  # trunk
    image += 0.35 * _ellipsoid(grid, (-1.0, 0), (draw(0.3, 0.5), draw(0.3, 0.5)), 0.2)  # neck and shoulders
    lungs = np.zeros(size)
    centres, radii = [], []
    for side in (-1, 1):
        centre = (draw(-0.2, 0.05), side * draw(0.38, 0.46))
        radius = (draw(0.5, 0.68), draw(0.24, 0.33))
        lungs = np.maximum(lungs, _ellipsoid(grid, centre, radius, draw(0.06, 0.14)))
        centres.append(centre)
        radii.append(radius)
    image -= draw(0.5, 0.65) * lungs
    image += draw(0.12, 0.3) * np.exp(-((x / draw(0.1, 0.16)) ** 2))  # spine
    heart = (draw(0.25, 0.4), draw(0.1, 0.22))
    image += draw(0.35, 0.5) * _ellipsoid(grid, heart, (draw(0.25, 0.36), draw(0.25, 0.38)))
    image += draw(0.3, 0.45) * _ellipsoid(grid, (1.0, 0), (draw(0.35, 0.55), 1.2), 0.12)  # diaphragm and belly
    spacing, slope, phase = draw(0.15, 0.21), draw(0.25, 0.6), draw(0, 1)
    ribs = np.cos(2 * np.pi * ((y + slope * np.abs(x) ** 1.5) / spacing + phase))
    image += draw(0.04, 0.08) * np.maximum(ribs, 0) ** 2 * (np.abs(x) > 0.14) * (np.abs(x) < 0.85)
    image += draw(0.03, 0.06) * _smooth_noise(body, size, 7)  # uneven soft tissue

    side = int(body.integers(2))
    angle, distance = draw(0, 2 * np.pi), draw(0.0, 0.55)
    place = [centres[side][0] + distance * radii[side][0] * np.sin(angle)]
    place.append(centres[side][1] + distance * radii[side][1] * np.cos(angle))
    lesion_radius, strength = draw(0.085, 0.13), draw(0.38, 0.5)
    if label == "nodule":
        image += strength * _ellipsoid(grid, place, (lesion_radius, lesion_radius * draw(0.85, 1.15)), 0.15)
    elif label == "interstitial":
        streaks = sum(_streaks(body, grid) for _ in range(3))
        image += 0.6 * strength * lungs * streaks / np.abs(streaks).max()
    image += 0.02 * view.standard_normal(size)
    return np.clip(np.rint(_level(image, view, mean=1900, deviation=430)), 0, 4095).astype(np.uint16)


def _streaks(rng: np.random.Generator, grid: list[np.ndarray]) -> np.ndarray:
    """Thin bent lines of one direction with zero mean."""
    y, x = grid
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(9, 13)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    bend = 0.05 * np.sin(2 * np.pi * (along * rng.uniform(1, 2) + rng.uniform()))
    return np.cos(2 * np.pi * (frequency * (across + bend) / 2 + rng.uniform()))


def _write_xray(path: Path, image: _Image) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    pixels = chest_xray(image.label, anatomy_seed=image.seeds[0], view_seed=image.seeds[1])
    inverted = np.random.default_rng([*image.seeds, 33]).random() < 1 / 3
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["dual_skd image", str(image.seeds)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID = meta.MediaStorageSOPClassUID
    dicom.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dicom.StudyInstanceUID = generate_uid(entropy_srcs=["dual_skd study", str(image.seeds[0])])
    dicom.SeriesInstanceUID = generate_uid(entropy_srcs=["dual_skd series", str(image.seeds)])
    dicom.PatientID, dicom.PatientName = image.patient, f"Phantom^{image.patient}"
    dicom.PatientBirthDate = dicom.PatientSex = ""
    dicom.StudyDate, dicom.StudyTime, dicom.AccessionNumber, dicom.ReferringPhysicianName = "20000101", "000000", "", ""
    dicom.StudyID, dicom.SeriesNumber, dicom.InstanceNumber = "1", "1", str(image.seeds[1] + 1)
    dicom.Modality, dicom.BodyPartExamined, dicom.ViewPosition = "DX", "CHEST", "PA"
    dicom.Manufacturer, dicom.ImageComments = "dual_skd", "Generated phantom, not a patient"
    dicom.ImageType = ["DERIVED", "PRIMARY"]
    dicom.PatientOrientation = ["L", "F"]
    dicom.PixelSpacing = dicom.ImagerPixelSpacing = list(SPACING_2D)
    dicom.SamplesPerPixel, dicom.PixelRepresentation = 1, 0
    dicom.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dicom.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dicom.RescaleIntercept, dicom.RescaleSlope, dicom.RescaleType = "0", "1", "US"
    dicom.WindowCenter, dicom.WindowWidth = "2048", "4096"
    dicom.Rows, dicom.Columns = pixels.shape
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit = 16, 12, 11
    dicom.PixelData = (4095 - pixels if inverted else pixels).astype("<u2").tobytes()
    dicom.save_as(path, enforce_file_format=True)


# ------------------------------------------------------------------------------------------------------ head volumes


def head_volume(label: str, *, anatomy_seed: int, size: tuple[int, int, int] = SIZE_3D) -> np.ndarray:
    """Draws one head-like volume.

    Args:
        label: "normal", "lesion" (one bright ball in the brain) or "atrophy" (wide ventricles).
        anatomy_seed: seed of the head.
        size: voxels along x (right), y (anterior), z (superior).

    Returns:
        (X, Y, Z) int16, no value below 0.
    """
    rng = np.random.default_rng([anatomy_seed, 44])
    grid = _coordinates(size)
    turn = np.deg2rad(rng.uniform(-8, 8))
    x, y, z = grid
    shift = rng.uniform(-0.06, 0.06, 3)
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    grid = [x + shift[0], y + shift[1], z + shift[2]]
    radii = np.array([rng.uniform(0.66, 0.76), rng.uniform(0.78, 0.88), rng.uniform(0.78, 0.9)])
    head, brain = _ellipsoid(grid, (0, 0, 0), radii), _ellipsoid(grid, (0, 0, 0), radii - 0.12)
    image = rng.uniform(0.7, 1.0) * head - rng.uniform(0.3, 0.5) * brain  # scalp and skull brighter than the brain
    image += rng.uniform(0.04, 0.08) * _smooth_noise(rng, size, 2.5) * brain  # gyri
    wide = rng.uniform(1.9, 2.3) if label == "atrophy" else 1.0
    apart, back = rng.uniform(0.13, 0.17), rng.uniform(-0.1, 0.1)
    ventricle = np.array([rng.uniform(0.06, 0.08), rng.uniform(0.22, 0.28), rng.uniform(0.2, 0.26)])
    for side in (-1, 1):
        centre = (side * apart * wide**0.5, back, rng.uniform(-0.05, 0.15))
        image -= 0.45 * _ellipsoid(grid, centre, ventricle * (wide, wide**0.5, wide**0.5), 0.12) * brain
    direction = rng.standard_normal(3)
    place = direction / np.linalg.norm(direction) * rng.uniform(0.45, 0.65) * (radii - 0.12)
    radius, strength = rng.uniform(0.18, 0.24), rng.uniform(0.6, 0.75)
    if label == "lesion":
        image += strength * _ellipsoid(grid, place, (radius, radius, radius * 1.3), 0.15)
    image += 0.02 * rng.standard_normal(size)
    return np.rint(_level(image, rng, mean=600, deviation=250) + OFFSET_3D).astype(np.int16)


def _write_head(path: Path, image: _Image) -> None:
    import nibabel

    volume = head_volume(image.label, anatomy_seed=image.seeds[0])
    affine = np.diag([*SPACING_3D, 1.0])  # RAS: voxel axes point right, anterior, superior
    affine[:3, 3] = [-spacing * (n - 1) / 2 for spacing, n in zip(SPACING_3D, volume.shape, strict=True)]
    file = nibabel.Nifti1Image(volume, affine)
    file.header.set_xyzt_units("mm")
    # gzip stamps the time of writing by default; equal seeds must give equal files

    path.write_bytes(gzip.compress(file.to_bytes(), compresslevel=3, mtime=0))
