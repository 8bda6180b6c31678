# SPDX-License-Identifier: Apache-2.0
"""The page of ``dual-skd check``: the answer, images as the network would see them, findings with pictures, tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dual_skd.api.shown_images import ShownImages, preprocessing_for
from dual_skd.data.checking.findings import Findings, Group
from dual_skd.data.reading.facts import spread
from dual_skd.data.reading.inspection import FileFacts
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.data.records.record import Record
from dual_skd.errors import input_error_behind
from dual_skd.evaluation.pages.rendering import Table, image_file, render
from dual_skd.utils.wording import counted, first_few

PICTURE_SIDE = 128  # pixels along the longer side of a picture; of a volume's slices together three times as many
PICTURES = 240  # on a page, of about 5 kB each
PICTURES_PER_CLASS = {2: 8, 3: 6}  # images, or volumes, of a class in each split; fewer where there are many classes
MAX_CLASSES = 20  # that are shown by images
CASES_PER_FINDING = 6  # images, or pairs of copies
MAX_NAMES = 10  # of files without a picture
MAX_VALUES = 5  # of a property in the table of files
FITS = {
    "pad": "the shape is kept, and what is left is filled with black",
    "crop": "the shape is kept, and what is too long is cut off on both sides",
    "stretch": "squeezed to this size, so that shapes change",
    None: "resampled to the spacing, then cut or filled with black about the middle",
}
WINDOWS = {
    "percentile": "black and white are the 0.5 and 99.5 percentiles of each image",
    "zscore": "each image is brought to mean 0 and standard deviation 1",
    "file": "black and white as each file says",
}


def check_page(
    name: str,
    data: DataList,
    findings: Findings,
    options: Mapping[str, Any],
    *,
    notes: Sequence[str],
    verdict: str,
    following: str,
) -> str:
    """The HTML document.

    Args:
        name: of the data set, for the title.
        data: as given, nothing left out.
        findings: of the whole check, with the facts of its files.
        options: of the images, as they were given: those that training would get.
        notes: remarks on the whole set.
        verdict: whether the set can be trained on, in a sentence.
        following: the next command; "" for none.
    """
    album = Album(data, findings.facts, options)
    classes = list(_seen(data, album))
    severities = {"error": "Errors", "warning": "Warnings"}
    found = {severity: [_finding(group, album) for group in findings.groups(severity)] for severity in severities}
    sections = [
        ("seen", "What the network would see"),
        *((severity, heading) for severity, heading in severities.items() if found[severity]),
        ("counts", "Images and patients"),
        ("files", "Files"),
    ]
    return render(
        "check.html",
        name=name,
        source=data.source.replace(str(data.root), data.root.name),  # folders above may be named after somebody
        verdict=verdict,
        following=following,
        sections=sections,
        found=found,
        readable=bool(album.records),
        settings=_settings(album.settings) if album.records else "",
        classes=classes,
        class_count=len(data.class_names),
        counts=_counts(data),
        notes=notes,
        files=_files([one for one in findings.facts.values() if not one.problem]),
    )


class Picture(NamedTuple):
    """A JPEG file, the name of its image, the width that it is shown in, and whether it is as wide as two."""

    file: bytes
    name: str
    width: int
    wide: bool


class Album:
    """Pictures of the images of a data set as training would see them, as many as a page may hold.

    Args:
        data: the data set.
        facts: of its files; those with a problem have no picture.
        options: of the images, as they were given.
    """

    def __init__(self, data: DataList, facts: Mapping[str, FileFacts], options: Mapping[str, Any]) -> None:
        splits = {split: [one for one in data.splits[split] if not facts[one.image].problem] for split in SPLITS}
        self.splits = splits
        self.records = {data.relative(one.image): one for split in SPLITS for one in splits[split]}
        self.left = PICTURES
        self.settings: dict[str, Any] = {}
        if self.records:
            train = splits["train"] or [*self.records.values()]
            self._transform, self.settings = preprocessing_for(replace(data, splits=splits | {"train": train}), options)

    def picture(self, name: str) -> list[Picture]:
        """The picture of an image by its name in reports; none of what can't be read, or when the page is full."""
        record = self.records.get(name)
        if record is None or not self.left:
            return []
        try:
            image = self._transform(record.as_dict())["image"]
        except Exception as error:
            if input_error_behind(error) is None:
                raise
            return []  # training would refuse it, which stands among the findings
        self.left -= 1
        (pixels,) = ShownImages(image[None], [name]).pictures()
        wide = image.ndim == 4
        side = PICTURE_SIDE * (3 if wide else 1)
        width = pixels.shape[1] * min(1, side / max(pixels.shape))
        return [Picture(image_file(pixels, side=side, kind="JPEG"), name, max(round(width), side * 3 // 4), wide)]


def _seen(data: DataList, album: Album) -> Iterator[tuple[str, list[tuple[str, list[Picture]]]]]:
    """The classes with a few pictures of each split, above which stands how many images that has."""
    divided = [split for split in SPLITS if album.splits[split]]
    names = data.class_names[:MAX_CLASSES] if divided else []
    share = PICTURES // 2 // max(len(names) * len(divided), 1)
    share = max(min(PICTURES_PER_CLASS[data.spatial_dims], share), 1)
    for label, name in enumerate(names):
        strips = []
        for split in divided:
            members = [one for one in album.splits[split] if label in one.positive_labels]
            shown = [members[place].image for place in spread(len(members), share)]
            count = counted(len(members), f"{split} image" if len(divided) > 1 else "image")
            strips.append((count, [one for image in shown for one in album.picture(data.relative(image))]))
        yield name, strips


def _settings(settings: Mapping[str, Any]) -> str:
    size, dims = settings["image_size"], settings["spatial_dims"]
    sides = size if isinstance(size, list) else [size] * dims
    window = settings["window"]
    scaled = WINDOWS.get(window) if isinstance(window, str) else "centre {:g}, width {:g}".format(*window)
    spacing = f"; {settings['spacing']} mm per pixel" if settings["spacing"] else ""
    cut = "; of each volume the middle axial, coronal and sagittal slice" if dims == 3 else ""
    return (
        f"{' x '.join(map(str, sides))} pixels: {FITS[settings['fit']]}{spacing}; {scaled}{cut}. "
        "--image-size, --fit, --spacing and --window change this."
    )


def _finding(group: Group, album: Album) -> dict[str, Any]:
    """A kind of finding: what it is, what to do, and the images concerned."""
    named = list(_once_per_pair([one for one in group.offenders if one["image"]]))
    shown: list[dict[str, Any]] = []
    listed: list[Mapping[str, Any]] = []
    for one in named:
        if len(shown) == CASES_PER_FINDING or len(listed) == MAX_NAMES:
            break
        if pictures := album.picture(one["image"]):
            where = ", ".join(filter(None, (one["split"], one["label"])))
            shown.append({**one, "pictures": pictures + album.picture(one["twin"]), "where": where})
        else:
            listed.append(one)
    return {
        "headline": group.headline.removesuffix("."),
        "remedies": group.remedies[:3],
        "of_all": [] if named or not group.example else [one["detail"] for one in group.offenders[:MAX_NAMES]],
        "shown": shown,
        "listed": listed,
        "more": len(named) - len(shown) - len(listed),
    }


def _once_per_pair(offenders: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    seen: set[frozenset[str]] = set()
    for one in offenders:
        pair = frozenset((one["image"], one["twin"] or one["image"]))
        if pair not in seen:
            yield one
        seen.add(pair)


def _counts(data: DataList) -> Table:
    """Images and patients of each class and split."""
    present = [split for split in SPLITS if data.splits[split]]
    columns = {split: data.splits[split] for split in present}
    if len(present) > 1:
        columns["all"] = [one for split in present for one in data.splits[split]]
    elif not (data.val or data.test):
        columns = {"all": data.train}
    rows = []
    for label, name in enumerate(data.class_names):
        rows.append([name, *(_tally([r for r in of if label in r.positive_labels]) for of in columns.values())])
    rows.append(["all classes", *(_tally(of) for of in columns.values())])
    if data.unlabelled:
        rows.append(["without labels", *[""] * (len(columns) - 1), _tally(data.unlabelled)])
    return Table(["", *columns], rows)


def _tally(records: Sequence[Record]) -> str:
    patients = {one.patient for one in records if one.patient}
    return f"{len(records)} ({counted(len(patients), 'patient')})" if patients else str(len(records))


def _files(facts: Sequence[FileFacts]) -> Table | None:
    """What the files are and hold, those without a problem; None where there are none."""
    if not facts:
        return None
    words = {
        "format": [one.format for one in facts],
        "pixels stored as": [one.mode for one in facts],
        "modality": [one.modality for one in facts],
        "manufacturer": [one.manufacturer for one in facts],
        "orientation": [one.orientation for one in facts],
    }
    rows = [[name, _commonest(found)] for name, found in words.items() if any(found)]
    shapes = [one.shape for one in facts if one.shape]
    spacings = [one.spacing for one in facts if one.spacing]
    aspects = [one.aspect for one in facts if one.aspect]
    lowest = [one.minimum for one in facts if one.minimum is not None]
    highest = [one.maximum for one in facts if one.maximum is not None]
    rows += [
        ["size along each axis, pixels", _range(shapes)],
        ["spacing along each axis, mm", _range(spacings) if spacings else "not stated"],
        ["width divided by height", _range([(one,) for one in aspects])],
        ["lowest value", _range([(one,) for one in lowest])],
        ["highest value", _range([(one,) for one in highest])],
    ]
    return Table(["", f"{counted(len(facts), 'image')} that can be used"], rows)


def _commonest(found: Sequence[str]) -> str:
    counts = Counter(one or "not stated" for one in found).most_common()
    return first_few([f"{name} ({count})" for name, count in counts], MAX_VALUES)


def _range(found: Sequence[Sequence[float]]) -> str:
    """Smallest, median and largest of numbers or of sizes, axis by axis."""
    values = np.array([one for one in found if len(one) == len(found[0])], dtype=float)
    low, middle, high = (
        " x ".join(f"{value:.4g}" for value in row) for row in (values.min(0), np.median(values, 0), values.max(0))
    )
    return low if low == high else f"{low} to {high}, median {middle}"
