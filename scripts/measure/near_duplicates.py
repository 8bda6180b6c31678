# SPDX-License-Identifier: Apache-2.0
"""Measures the search for near-duplicates: how many planted copies it finds, and how many other pairs it calls copies.

    python -m scripts.measure.near_duplicates DATA [--spatial_dims 3] [--patient_pattern P] [--number 200]

DATA is any data set that ``load_records`` takes. The result is printed as JSON. Copies of random images are planted:
JPEG of quality 30 to 95, resized by 0.5 to 1.5, turned by up to 5 degrees, brightness and contrast changed by up to
30 %, gamma 0.7 to 1.4, up to 2 % cropped from each side, and all of it at once. Of a volume the middle slice is the
image. False pairs are counted

* among images of different patients, where patients are known (volumes: middle slices with the same label),
* among neighbouring slices of a volume, 1 and 2 apart, over the middle half of it.

Half of the images, chosen at random, serve to look for a threshold: the highest that still finds 99 % of the JPEG and
resized copies. All rates are of the other half, at the threshold in use and at that one. Equal seeds give equal copies.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from dual_skd.data import load_records
from dual_skd.data.near_duplicates.finder import SIMILARITY, NearDuplicateFinder
from dual_skd.data.near_duplicates.signatures import read_finite
from dual_skd.metrics.score_intervals import wilson_interval

LOWEST_SIMILARITY = 0.3  # pairs below it count as not found
RESAMPLING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def resize(image: Image.Image, rng: random.Random) -> Image.Image:
    factor = rng.uniform(0.5, 1.5)
    size = tuple(max(8, round(length * factor)) for length in image.size)
    return image.resize(size, rng.choice(RESAMPLING))


def rotate(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.rotate(rng.uniform(-5, 5), resample=Image.Resampling.BICUBIC)


def change_exposure(image: Image.Image, rng: random.Random) -> Image.Image:
    brighter = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
    return ImageEnhance.Contrast(brighter).enhance(rng.uniform(0.7, 1.3))


def change_gamma(image: Image.Image, rng: random.Random) -> Image.Image:
    gamma = rng.uniform(0.7, 1.4)
    return image.point([round(255 * (value / 255) ** gamma) for value in range(256)])


def crop(image: Image.Image, rng: random.Random) -> Image.Image:
    limit = max(1, round(0.02 * min(image.size)))
    left, top, right, bottom = (rng.randint(0, limit) for _ in range(4))
    return image.crop((left, top, image.width - right, image.height - bottom))


def change_all(image: Image.Image, rng: random.Random) -> Image.Image:
    for change in (rotate, change_exposure, change_gamma, resize, crop):
        image = change(image, rng)
    return image


KINDS: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "jpeg": lambda image, rng: image,
    "resize": resize,
    "rotation": rotate,
    "brightness_contrast": change_exposure,
    "gamma": change_gamma,
    "crop": crop,
    "all": change_all,
}


def rate(values: list[float], threshold: float, pairs: int | None = None) -> dict[str, Any]:
    """Share of pairs whose similarity reaches a threshold, with its 95 % interval.

    Args:
        values: similarities that were measured.
        threshold: from which on a pair is called near-duplicates.
        pairs: their number, where not all of them were measured.
    """
    pairs = pairs or len(values)
    called = sum(value >= threshold for value in values)
    interval = [round(limit, 6) for limit in wilson_interval(called, pairs)]
    return {"pairs": pairs, "called_near_duplicates": called, "share": round(called / pairs, 6), "interval": interval}


def as_picture(array: np.ndarray) -> Image.Image:
    low, high = np.percentile(array, [0, 99.8])
    grey = np.clip((array - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    return Image.fromarray(grey.T)


def similarities(first: list[str], second: list[str], context: list[str]) -> dict[frozenset[str], float]:
    """Similarity of every pair that the search looks at, whatever the threshold."""
    finder = NearDuplicateFinder([*first, *second, *context], cache=False)
    return {
        frozenset((t.image, t.other)): t.similarity
        for t in finder.find(first, second, min_similarity=LOWEST_SIMILARITY)
    }


def measure_planted(
    sources: list[str], context: list[str], folder: Path, seed: int
) -> dict[str, dict[str, list[float]]]:
    """Half ("tune", "report") -> kind -> similarity of every planted copy and its source, 0 where not looked at."""
    copies: dict[str, tuple[str, str, str]] = {}
    for number, source in enumerate(sources):
        picture = as_picture(read_finite(source))
        for kind, change in KINDS.items():
            rng = random.Random(f"{seed} {number} {kind}")
            path = folder / f"copy_{number}_{kind}.{'jpg' if kind in ('jpeg', 'all') else 'png'}"
            options = {"quality": rng.randint(30, 95)} if path.suffix == ".jpg" else {}
            change(picture, rng).save(path, **options)
            copies[str(path)] = (source, kind, "tune" if number % 2 else "report")
    values = similarities(list(copies), sources, context)
    found: dict[str, dict[str, list[float]]] = {half: defaultdict(list) for half in ("tune", "report")}
    for path, (source, kind, half) in copies.items():
        found[half][kind].append(values.get(frozenset((path, source)), 0.0))
    return found


def measure_patients(patient_of: dict[str, str], seed: int) -> dict[str, list[float] | int]:
    """Similarity of all pairs of images of different patients, zeros for those that were not looked at, and images."""
    images = sorted(patient_of)
    random.Random(seed).shuffle(images)
    images = images[: len(images) // 2]
    pairs = {p: v for p, v in similarities(images, images, []).items() if len({patient_of[i] for i in p}) == 2}
    of = defaultdict(int)
    for image in images:
        of[patient_of[image]] += 1
    possible = (len(images) ** 2 - sum(count**2 for count in of.values())) // 2
    return {"values": list(pairs.values()), "possible": possible, "images": len(images)}


def measure_neighbours(volumes: list[str], folder: Path) -> dict[str, list[float]]:
    """Similarity of slices k and k + 1, k and k + 2 of the middle half of each volume, by the volume's slices."""
    place: dict[str, tuple[int, int, int]] = {}
    for number, volume in enumerate(volumes):
        array = read_finite(volume, spatial_dims=3)
        depth = array.shape[2]
        for k in range(depth // 4, depth - depth // 4):
            path = folder / f"slice_{number}_{k}.png"
            as_picture(array[:, :, k]).save(path)
            place[str(path)] = (number, k, depth)
    values = similarities(list(place), list(place), [])
    slices = {(number, k): path for path, (number, k, _) in place.items()}
    found: dict[str, list[float]] = defaultdict(list)
    for path, (number, k, depth) in place.items():
        for step in (1, 2):
            if other := slices.get((number, k + step)):
                value = values.get(frozenset((path, other)), 0.0)
                found[f"{step} apart"].append(value)
                found[f"{step} apart, volumes of {'up to' if depth <= 40 else 'more than'} 40 slices"].append(value)
    return found


def middle_slices(records: list[dict], folder: Path) -> dict[str, str]:
    """Writes the middle slice of each volume; path of the volume -> path of the slice."""
    slices: dict[str, str] = {}
    for number, record in enumerate(records):
        array = read_finite(record["image"], spatial_dims=3)
        path = folder / f"middle_{number}.png"
        as_picture(array[:, :, array.shape[2] // 2]).save(path)
        slices[record["image"]] = str(path)
    return slices


def measure(records: list[dict], folder: Path, *, volumes: bool, number: int, seed: int) -> dict[str, Any]:
    """Rates of copies found and of false pairs, at the threshold in use and at the tuned one."""

    def drawn(paths: list[str]) -> list[str]:
        return random.Random(seed).sample(paths, min(number, len(paths)))

    images = sorted(record["image"] for record in records)
    known = [record for record in records if record["patient"]]
    groups = {"": {record["image"]: record["patient"] for record in known}}
    neighbours: dict[str, list[float]] = {}
    if volumes:
        slices = middle_slices(records, folder)
        groups = defaultdict(dict)
        for record in known:
            groups[str(record["label"])][slices[record["image"]]] = record["patient"]
        neighbours = measure_neighbours(drawn(images), folder)
        images = sorted(slices.values())
    planted = measure_planted(drawn(images), images, folder, seed)
    patients = [measure_patients(group, seed) for group in groups.values() if len(group) > 3]
    easy = sorted(planted["tune"]["jpeg"] + planted["tune"]["resize"])
    thresholds = {"": SIMILARITY, "_tuned": easy[int(0.01 * len(easy))]}
    result: dict[str, Any] = {"tuned_threshold": thresholds["_tuned"]}
    for title, threshold in thresholds.items():
        result[f"found{title}"] = {kind: rate(values, threshold) for kind, values in planted["report"].items()}
        if volumes:
            result[f"neighbouring_slices{title}"] = {k: rate(values, threshold) for k, values in neighbours.items()}
        if patients:
            values = [value for part in patients for value in part["values"]]
            possible, compared = (sum(part[key] for part in patients) for key in ("possible", "images"))
            result[f"different_patients{title}"] = {"images": compared, **rate(values, threshold, possible)}
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set that load_records takes")
    parser.add_argument("--spatial_dims", type=int, default=2)
    parser.add_argument("--patient_pattern", help="regular expression with one group, found in file names")
    parser.add_argument("--label_column", default="label")
    parser.add_argument(
        "--number", type=int, default=200, help="images to plant copies of, or volumes to take slices of"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    data = load_records(
        options.data,
        spatial_dims=options.spatial_dims,
        label_column=options.label_column,
        patient_pattern=options.patient_pattern,
        keep_twins=True,
        val_fraction=0,
        refuse_shared_patients=False,
    )
    records = [record for split in data.splits.values() for record in split]
    result = {"data": options.data, "images": len(records), "seed": options.seed, "threshold": SIMILARITY}
    with tempfile.TemporaryDirectory() as folder:
        result |= measure(
            records, Path(folder), volumes=options.spatial_dims == 3, number=options.number, seed=options.seed
        )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
