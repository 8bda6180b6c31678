# SPDX-License-Identifier: Apache-2.0
"""Generated demo data: chest-like X-rays as DICOM files and head-like volumes as NIfTI files.

Nothing here is, or derives from, a real image. Brightness doesn't give the class away: mean and deviation of every
image are drawn from the same distributions. A network has to find the nodule, the texture, the lesion or the wide
ventricles. It can't find all, as they range from plain to faint.

The X-rays come from two hospitals. The one in the folder ``second_hospital`` has another machine, larger patients and
more normal images; nothing trains on it.
"""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dual_skd.errors import InputError
from dual_skd.utils.files import expanded, read_json

VERSION = 5
MARKER = "demo.json"
DEMO_NAMES = {"demo": 2, "demo3d": 3}  # names to use as dataset_dir, and their spatial dimensions
CLASSES_2D = ("interstitial", "normal", "nodule")
CLASSES_3D = ("atrophy", "lesion", "normal")
SECOND = "second_hospital"
COUNTS_2D = {"train": 360, "val": 90, "test": 120, SECOND: 120}
COUNTS_3D = {"train": 96, "val": 33, "test": 48}
SIZE_2D = (128, 128)  # rows, columns
SIZE_3D = (48, 48, 24)  # x (right), y (anterior), z (superior)
SPACING_2D = (2.5, 2.5)  # mm
SPACING_3D = (4.0, 4.0, 7.0)  # mm
# uniform ranges: densities where the trunk is 0.9, radii in half images
TEXTURE = {"normal": (0.0, 0.11), "interstitial": (0.1, 0.35)}
NODULE_STRENGTH = (0.19, 0.45)
NODULE_RADIUS = (0.065, 0.12)
# uniform ranges: widths as multiples of an ordinary one, densities where the brain is about 0.4
VENTRICLES = {"normal": (0.8, 1.25), "atrophy": (1.3, 2.2)}
LESION_STRENGTH = (0.35, 0.7)
LESION_RADIUS = (0.13, 0.22)
OFFSET_3D = 1000  # added to all values, as MR has no negative ones


@dataclass(frozen=True)
class _Image:
    """One image of the demo data: where it is written, what it shows, and its seeds."""

    name: str
    label: str
    split: str
    patient: str
    machine: str
    seeds: tuple[int, int]  # of the patient's anatomy, of the exposure


def demo_classes(dataset_dir: str = "demo", spatial_dims: int = 2) -> list[str]:
    """The classes of the demo data that a name stands for, in label order."""
    dims = max(DEMO_NAMES.get(dataset_dir, 2), spatial_dims)
    return sorted(CLASSES_2D if dims == 2 else CLASSES_3D)


def write_demo(
    directory: str | Path, *, spatial_dims: int = 2, seed: int = 0, counts: Mapping[str, int] | None = None
) -> Path:
    """Writes the demo data, or reuses those of an earlier call with equal arguments.

    Args:
        directory: new folder, or one written by this function.
        spatial_dims: 2 for 128 x 128 DICOM X-rays (12 bits stored in 16, about a third MONOCHROME1), classes
            interstitial / normal / nodule; 3 for 48 x 48 x 24 NIfTI volumes, classes atrophy / lesion / normal.
        seed: equal seeds give equal files.
        counts: images per split, and of the "second_hospital"; default 360 / 90 / 120 and 120 in 2D, 96 / 33 / 48
            and none in 3D.

    Returns:
        The folder, with ``datalist.csv`` (image, label, split, patient, in 2D also machine) and the folder ``images``.
        Its subfolder ``second_hospital`` has the same, without splits.

    Raises:
        InputError: the folder holds other files, which are never overwritten.
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
        raise InputError(
            f"{directory} holds demo data of another version or kind, which a run may have learned from; give another "
            "output_dir, or remove that folder."
        )
    if directory.is_file():
        raise InputError(f"{directory} is a file; give a new folder for the demo data.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    # an interrupted run leaves nothing incomplete, as the folder is written elsewhere and moved in one step
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        target = Path(scratch) / "demo"
        plan = _plan(spatial_dims, seed, counts)
        _write_hospital(target, [image for image in plan if image.split != SECOND])
        if counts.get(SECOND):
            _write_hospital(target / SECOND, [replace(image, split="") for image in plan if image.split == SECOND])
        (target / MARKER).write_text(json.dumps(marker), encoding="utf-8")
        if _holds(directory, marker):  # written by another process meanwhile
            return directory
        try:
            target.rename(directory.resolve())  # takes the place of an empty folder
        except OSError:
            if not _holds(directory, marker):
                raise
    return directory


def _write_hospital(folder: Path, plan: Sequence[_Image]) -> None:
    """Writes the images, and their table without empty columns."""
    (folder / "images").mkdir(parents=True)
    for image in plan:
        (_write_xray if image.name.endswith(".dcm") else _write_head)(folder / image.name, image)
    columns = [name for name in ("name", "label", "split", "patient", "machine") if any(getattr(i, name) for i in plan)]
    with (folder / "datalist.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", *columns[1:]])
        table.writerows([getattr(image, name) for name in columns] for image in plan)


def of_demo(path: str | Path) -> bool:
    """Whether a path lies in demo data, or is one of their names."""
    if str(path) in DEMO_NAMES:
        return True
    path = Path(path).expanduser().absolute()
    return any((folder / MARKER).is_file() for folder in (path, *path.parents))


def _holds(directory: Path, marker: dict) -> bool:
    return read_json(directory / MARKER) == marker


def _plan(spatial_dims: int, seed: int, counts: Mapping[str, int]) -> list[_Image]:
    """Plans patients with one to three images each, of one class, from one machine and in one split."""
    classes = CLASSES_2D if spatial_dims == 2 else CLASSES_3D
    suffix, most = (".dcm", 3) if spatial_dims == 2 else (".nii.gz", 1)
    rng = np.random.default_rng([seed, spatial_dims])
    images: list[_Image] = []
    patient = 0
    for split, total in counts.items():
        shares = [3 if split == SECOND and label == "normal" else 1 for label in classes]
        ends = [total * sum(shares[: place + 1]) // sum(shares) for place in range(len(classes))]
        for label, wanted in zip(classes, np.diff([0, *ends]), strict=True):
            while wanted > 0:
                patient += 1
                machine = "older" if split == SECOND else "mobile" if rng.random() < 0.3 else "fixed"
                for view in range(min(int(rng.integers(1, most + 1)), wanted)):
                    name = f"images/P{patient:04d}_{view + 1}{suffix}"
                    seeds = (seed * 100_003 + patient, view)
                    images.append(_Image(name, label, split, f"P{patient:04d}", machine if most > 1 else "", seeds))
                    wanted -= 1
    return images


def _coordinates(size: tuple[int, ...]) -> list[np.ndarray]:
    """Voxel centres from -1 to 1 along every axis."""
    axes = [(np.arange(n) + 0.5) / n * 2 - 1 for n in size]
    return list(np.meshgrid(*axes, indexing="ij"))


def _ellipsoid(grid: list[np.ndarray], centre, radii, softness: float = 0.08) -> np.ndarray:
    """1 inside, 0 outside, with a soft edge; ``softness`` is its width in radii."""
    distance = np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True)))
    return 1 / (1 + np.exp(np.clip((distance - 1) / softness, -30, 30)))


def _smooth_noise(rng: np.random.Generator, size: tuple[int, ...], width: float) -> np.ndarray:
    """Gaussian noise with unit deviation, correlated over about ``width`` voxels."""
    noise = _blurred(rng.standard_normal(size), width)
    return (noise - noise.mean()) / noise.std()


def _blurred(image: np.ndarray, width: float) -> np.ndarray:
    """Gaussian blur with a deviation of ``width`` voxels, in Fourier space."""
    *first, last = image.shape
    frequencies = np.meshgrid(*[np.fft.fftfreq(n) for n in first], np.fft.rfftfreq(last), indexing="ij", sparse=True)
    transfer = np.exp(-2 * (np.pi * width) ** 2 * sum(f**2 for f in frequencies))
    return np.fft.irfftn(np.fft.rfftn(image) * transfer, image.shape, axes=range(image.ndim))


def _level(image: np.ndarray, rng: np.random.Generator, *, mean: float, deviation: float) -> np.ndarray:
    """Sets mean and deviation to values drawn independently of the class."""
    image = (image - image.mean()) / image.std()
    return image * deviation * rng.uniform(0.8, 1.2) + mean * rng.uniform(0.8, 1.2)


@dataclass(frozen=True)
class Machine:
    """Properties of one kind of X-ray machine."""

    noise: float  # deviation, where the lungs are about 0.6 darker than the trunk
    blur: float  # deviation in pixels
    build: float = 1.0  # relative width of its patients
    curve: float = 1.0  # exponent from density to grey value


MACHINES = {
    "fixed": Machine(noise=0.02, blur=0.3),
    "mobile": Machine(noise=0.04, blur=0.9),
    "older": Machine(noise=0.073, blur=1.05, build=1.15, curve=1.6),
}


def chest_xray(
    label: str, *, anatomy_seed: int, view_seed: int = 0, machine: str = "fixed", size: tuple[int, int] = SIZE_2D
) -> np.ndarray:
    """Draws one chest-like X-ray, bright where dense.

    Nodules range from plain to faint, and may lie behind a rib, a vessel or the heart. All lungs have vessels, some of
    them seen end-on as dots, and a little texture; "interstitial" begins where the texture of the others ends.

    Args:
        label: "normal", "nodule" (one round lesion in a lung) or "interstitial" (a fine net in both lungs).
        anatomy_seed: of the patient.
        view_seed: of position, exposure and noise.
        machine: a key of :data:`MACHINES`.
        size: rows and columns.

    Returns:
        (H, W) uint16, 12 bits used.
    """
    body = np.random.default_rng([anatomy_seed, 11])
    view = np.random.default_rng([anatomy_seed, 22, view_seed])
    made_by = MACHINES[machine]
    y, x = _coordinates(size)
    # small turn, shift and magnification of the patient
    turn, zoom = np.deg2rad(view.uniform(-5, 5)), view.uniform(0.93, 1.07)
    dy, dx = view.uniform(-0.06, 0.06, 2)
    y, x = zoom * (np.cos(turn) * y - np.sin(turn) * x) + dy, zoom * (np.sin(turn) * y + np.cos(turn) * x) + dx
    image = _chest(label, body, [y, x / made_by.build])
    image = _blurred(image, made_by.blur) + made_by.noise * view.standard_normal(size)
    image = ((image - image.min()) / np.ptp(image)) ** made_by.curve
    return np.clip(np.rint(_level(image, view, mean=1900, deviation=430)), 0, 4095).astype(np.uint16)


def _chest(label: str, body: np.random.Generator, grid: list[np.ndarray]) -> np.ndarray:
    def draw(low: float, high: float) -> float:
        return float(body.uniform(low, high))

    y, x = grid
    image = 0.9 * _ellipsoid(grid, (draw(0.1, 0.25), 0), (draw(1.0, 1.3), draw(0.8, 1.0)), 0.06)  # trunk
    image += 0.35 * _ellipsoid(grid, (-1.0, 0), (draw(0.3, 0.5), draw(0.3, 0.5)), 0.2)  # neck and shoulders
    lungs, inside = np.zeros(x.shape), np.zeros(x.shape)
    sides = []
    for side in (-1, 1):
        centre = (draw(-0.2, 0.05), side * draw(0.38, 0.46))
        radius = (draw(0.5, 0.68), draw(0.24, 0.33))
        lung = _ellipsoid(grid, centre, radius, draw(0.06, 0.14))
        lungs = np.maximum(lungs, lung)
        inside += lung * _vessels(body, grid, (centre[0] + draw(0, 0.1), side * draw(0.16, 0.22)), side)
        sides.append((centre, radius))
    image += draw(0.12, 0.2) * inside - draw(0.5, 0.65) * lungs
    image += draw(0.12, 0.3) * np.exp(-((x / draw(0.1, 0.16)) ** 2))  # spine
    heart = (draw(0.25, 0.4), draw(0.1, 0.22))
    image += draw(0.35, 0.5) * _ellipsoid(grid, heart, (draw(0.25, 0.36), draw(0.25, 0.38)))
    image += draw(0.3, 0.45) * _ellipsoid(grid, (1.0, 0), (draw(0.35, 0.55), 1.2), 0.12)  # diaphragm and belly
    spacing, slope, phase = draw(0.15, 0.21), draw(0.25, 0.6), draw(0, 1)
    ribs = np.cos(2 * np.pi * ((y + slope * np.abs(x) ** 1.5) / spacing + phase))
    image += draw(0.06, 0.12) * np.maximum(ribs, 0) ** 2 * (np.abs(x) > 0.14) * (np.abs(x) < 0.85)
    image += draw(0.03, 0.06) * _smooth_noise(body, x.shape, 7)  # uneven soft tissue
    net = np.exp(-((_smooth_noise(body, x.shape, 2.2) / 0.4) ** 2))  # bright where the noise crosses 0
    image += (draw(*TEXTURE["interstitial"]) if label == "interstitial" else draw(*TEXTURE["normal"])) * net * lungs
    (centre, radius), angle, distance = sides[int(body.integers(2))], draw(0, 2 * np.pi), draw(0.0, 0.75)
    place = np.array(centre) + distance * np.array(radius) * (np.sin(angle), np.cos(angle))
    strength, size = draw(*NODULE_STRENGTH), draw(*NODULE_RADIUS)
    if label == "nodule":
        image += strength * _ellipsoid(grid, place, (size, size * draw(0.85, 1.15)), 0.2)
    return image


def _vessels(rng: np.random.Generator, grid: list[np.ndarray], hilum, side: int) -> np.ndarray:
    """Bent lines that fade outwards from a hilum, and dots where a vessel is seen end-on."""
    y, x = grid[0] - hilum[0], grid[1] - hilum[1]
    distance, angle = np.hypot(y, x), np.arctan2(y, side * x)
    lines = np.zeros(x.shape)
    for direction in np.linspace(-1.4, 1.4, 7) + rng.uniform(-0.2, 0.2, 7):
        across = distance * (angle - direction - rng.uniform(-1, 1) * distance)
        lines += np.exp(-((across / rng.uniform(0.02, 0.035)) ** 2) - distance / 0.3)
    vessels = np.minimum(lines, 1)
    for _ in range(rng.integers(3)):
        away, towards = rng.uniform(0.05, 0.35), rng.uniform(-1.4, 1.4)
        dot = (hilum[0] + away * np.sin(towards), hilum[1] + side * away * np.cos(towards))
        vessels += rng.uniform(0.8, 1.6) * _ellipsoid(grid, dot, [rng.uniform(0.025, 0.04)] * 2, 0.25)
    return vessels


def _write_xray(path: Path, image: _Image) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    anatomy, view = image.seeds
    pixels = chest_xray(image.label, anatomy_seed=anatomy, view_seed=view, machine=image.machine)
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
    dicom.ImageType, dicom.PatientOrientation = ["DERIVED", "PRIMARY"], ["L", "F"]
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


def head_volume(label: str, *, anatomy_seed: int, size: tuple[int, int, int] = SIZE_3D) -> np.ndarray:
    """Draws one head-like volume.

    Lesions range from bright to faint, and every brain may have a few smaller bright spots. "atrophy" begins where the
    width of the others' ventricles ends.

    Args:
        label: "normal", "lesion" (one bright ball in the brain) or "atrophy" (wide ventricles).
        anatomy_seed: seed of the head.
        size: voxels along x (right), y (anterior), z (superior).

    Returns:
        (X, Y, Z) int16, no value below 0.
    """
    rng = np.random.default_rng([anatomy_seed, 44])
    x, y, z = _coordinates(size)
    turn = np.deg2rad(rng.uniform(-8, 8))
    shift = rng.uniform(-0.06, 0.06, 3)
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    grid = [x + shift[0], y + shift[1], z + shift[2]]
    radii = np.array([rng.uniform(0.66, 0.76), rng.uniform(0.78, 0.88), rng.uniform(0.78, 0.9)])
    head, brain = _ellipsoid(grid, (0, 0, 0), radii), _ellipsoid(grid, (0, 0, 0), radii - 0.12)
    image = rng.uniform(0.7, 1.0) * head - rng.uniform(0.3, 0.5) * brain  # scalp and skull brighter than the brain
    image += rng.uniform(0.04, 0.08) * _smooth_noise(rng, size, 2.5) * brain  # gyri
    wide = rng.uniform(*VENTRICLES["atrophy" if label == "atrophy" else "normal"])
    apart, back = rng.uniform(0.13, 0.17), rng.uniform(-0.1, 0.1)
    ventricle = np.array([rng.uniform(0.06, 0.08), rng.uniform(0.22, 0.28), rng.uniform(0.2, 0.26)])
    for side in (-1, 1):
        centre = (side * apart * wide**0.5, back, rng.uniform(-0.05, 0.15))
        image -= 0.45 * _ellipsoid(grid, centre, ventricle * (wide, wide**0.5, wide**0.5), 0.12) * brain
    for _ in range(rng.integers(4)):
        spot = rng.uniform(0.05, 0.07)
        image += rng.uniform(0.2, 0.4) * _ellipsoid(grid, _in_brain(rng, radii), (spot, spot, spot * 1.3), 0.3)
    place, radius, strength = _in_brain(rng, radii), rng.uniform(*LESION_RADIUS), rng.uniform(*LESION_STRENGTH)
    if label == "lesion":
        image += strength * _ellipsoid(grid, place, (radius, radius, radius * 1.3), 0.15)
    image += 0.02 * rng.standard_normal(size)
    return np.rint(_level(image, rng, mean=600, deviation=250) + OFFSET_3D).astype(np.int16)


def _in_brain(rng: np.random.Generator, radii: np.ndarray) -> np.ndarray:
    """A place in a brain inside a head of these radii, outside the ventricles."""
    direction = rng.standard_normal(3)
    return direction / np.linalg.norm(direction) * rng.uniform(0.4, 0.75) * (radii - 0.12)


def _write_head(path: Path, image: _Image) -> None:
    import nibabel

    volume = head_volume(image.label, anatomy_seed=image.seeds[0])
    affine = np.diag([*SPACING_3D, 1.0])  # RAS: voxel axes point right, anterior, superior
    affine[:3, 3] = [-spacing * (n - 1) / 2 for spacing, n in zip(SPACING_3D, volume.shape, strict=True)]
    file = nibabel.Nifti1Image(volume, affine)
    file.header.set_xyzt_units("mm")
    # without gzip's time stamp equal seeds give equal files
    path.write_bytes(gzip.compress(file.to_bytes(), compresslevel=3, mtime=0))
