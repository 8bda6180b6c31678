# SPDX-License-Identifier: Apache-2.0
"""Measures the search for copies: how many planted ones it finds, and how many pairs of other images it takes for some.

    python -m scripts.measure.near_duplicates DATA [--spatial_dims 3] [--patient_pattern P] [--number 200] [--json FILE]

DATA is any data set that ``load_records`` takes. Copies of random images are planted: JPEG of quality 30 to 95, resized
by 0.5 to 1.5, turned by up to 5 degrees, brightness and contrast changed by up to 30 %, gamma 0.7 to 1.4, up to 2 %
cropped from each side, and all of it at once. Of a volume the middle slice is the image. False pairs are counted

* among images of different patients, where patients are known (volumes: middle slices with the same label),
* among neighbouring slices of a volume, 1 and 2 apart, over the middle half of it.

Half of the images, chosen at random, serve to look for a threshold: the highest that still finds 99 % of the JPEG and
resized copies. All rates are of the other half, at the threshold in use and at that one. Equal seeds give equal copies.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from dual_skd.data import load_records
from dual_skd.data.twins.finder import SIMILARITY, TwinFinder
from dual_skd.data.twins.signatures import read_finite

LOWEST = 0.3  # pairs that are less alike than this are counted as not found
RESAMPLING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def resized(image: Image.Image, rng: random.Random) -> Image.Image:
    factor = rng.uniform(0.5, 1.5)
    size = tuple(max(8, round(length * factor)) for length in image.size)
    return image.resize(size, rng.choice(RESAMPLING))


def turned(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.rotate(rng.uniform(-5, 5), resample=Image.Resampling.BICUBIC)


def exposed(image: Image.Image, rng: random.Random) -> Image.Image:
    brighter = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
    return ImageEnhance.Contrast(brighter).enhance(rng.uniform(0.7, 1.3))


def bent(image: Image.Image, rng: random.Random) -> Image.Image:
    gamma = rng.uniform(0.7, 1.4)
    return image.point([round(255 * (value / 255) ** gamma) for value in range(256)])


def cropped(image: Image.Image, rng: random.Random) -> Image.Image:
    most = max(1, round(0.02 * min(image.size)))
    left, top, right, bottom = (rng.randint(0, most) for _ in range(4))
    return image.crop((left, top, image.width - right, image.height - bottom))


def everything(image: Image.Image, rng: random.Random) -> Image.Image:
    for change in (turned, exposed, bent, resized, cropped):
        image = change(image, rng)
    return image


KINDS: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "jpeg": lambda image, rng: image,
    "resize": resized,
    "rotation": turned,
    "brightness_contrast": exposed,
    "gamma": bent,
    "crop": cropped,
    "all": everything,
}


def wilson(found: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    if not total:
        return 0.0, 1.0
    z, share = 1.959964, found / total
    centre, spread = share + z * z / (2 * total), z * (share * (1 - share) / total + z * z / (4 * total**2)) ** 0.5
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def rate(values: list[float], threshold: float) -> dict:
    """How many values reach a threshold, with its interval."""
    hits = sum(value >= threshold for value in values)
    low, high = wilson(hits, len(values))
    share = round(hits / max(len(values), 1), 6)
    return {"pairs": len(values), "called_twins": hits, "share": share, "interval": [round(low, 6), round(high, 6)]}


def as_picture(array: np.ndarray) -> Image.Image:
    low, high = np.percentile(array, [0, 99.8])
    grey = np.clip((array - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    return Image.fromarray(grey.T)


def similarities(first: list[str], second: list[str], context: list[str]) -> dict[frozenset[str], float]:
    """Likeness of every pair that the search looks at, the threshold left aside."""
    finder = TwinFinder([*first, *second, *context], cache=False)
    return {frozenset((t.image, t.twin)): t.similarity for t in finder.twins(first, second, similarity=LOWEST)}


def measure_planted(
    sources: list[str], context: list[str], folder: Path, seed: int
) -> dict[str, dict[str, list[float]]]:
    """Half ("tune", "report") -> kind -> likeness of every planted copy and its source, 0 where not looked at."""
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
    """Likeness of all pairs of images of different patients, zeros for those that were not looked at, and images."""
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
    """Likeness of slices k and k + 1, k and k + 2 of the middle half of each volume, by the volume's slices."""
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
    parser.add_argument("--json", help="file for the result")
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
    images = sorted(record["image"] for record in records)
    result: dict = {"data": options.data, "images": len(images), "seed": options.seed, "threshold": SIMILARITY}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        groups = {"": {r["image"]: r["patient"] for r in records if r["patient"]}}
        if options.spatial_dims == 3:
            slices: dict[str, str] = {}
            groups = defaultdict(dict)
            for number, record in enumerate(records):
                array = read_finite(record["image"], spatial_dims=3)
                path = str(folder / f"middle_{number}.png")
                as_picture(array[:, :, array.shape[2] // 2]).save(path)
                slices[record["image"]] = path
                if record["patient"]:
                    groups[str(record["label"])][path] = record["patient"]
            rng = random.Random(options.seed)
            neighbours = measure_neighbours(rng.sample(images, min(options.number, len(images))), folder)
            images = sorted(slices.values())
        sources = random.Random(options.seed).sample(images, min(options.number, len(images)))
        planted = measure_planted(sources, images, folder, options.seed)
        easy = sorted(planted["tune"]["jpeg"] + planted["tune"]["resize"])
        tuned = easy[int(0.01 * len(easy))]
        result["tuned_threshold"] = tuned
        for title, threshold in (("", SIMILARITY), ("_tuned", tuned)):
            result[f"found{title}"] = {kind: rate(values, threshold) for kind, values in planted["report"].items()}
            if options.spatial_dims == 3:
                result[f"neighbouring_slices{title}"] = {k: rate(v, threshold) for k, v in neighbours.items()}
        patients = [measure_patients(group, options.seed) for group in groups.values() if len(group) > 3]
        if patients:
            values = [value for part in patients for value in part["values"]]
            possible, number = (sum(part[key] for part in patients) for key in ("possible", "images"))
            for title, threshold in (("", SIMILARITY), ("_tuned", tuned)):
                hits = sum(value >= threshold for value in values)
                low, high = wilson(hits, possible)
                result[f"different_patients{title}"] = {
                    "images": number,
                    "pairs": possible,
                    "called_twins": hits,
                    "share": hits / possible,
                    "interval": [low, high],
                    "per_image": hits / number,
                }
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if options.json:
        Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
