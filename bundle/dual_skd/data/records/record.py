# SPDX-License-Identifier: Apache-2.0
"""One image of a data set with its label, as lists of images hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Record(Mapping[str, Any]):
    """An image with its label; also a read-only mapping, as MONAI's transforms take it: ``record["image"]``.

    Args:
        image: absolute locator, see :mod:`dual_skd.data.reading.locators`.
        label: number of the class, or 0.0 / 1.0 for each class where images may have several labels; None without one.
        patient: "" when unknown.
        site: "" when unknown.
        groups: (column, value) of further columns of a table that divide its images into a few groups, such as sex.
            In the mapping each column is a key of its own.
    """

    image: str
    label: int | list[float] | None
    patient: str = ""
    site: str = ""
    groups: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The record as a plain dictionary, for JSON files and MONAI's data sets."""
        label = {} if self.label is None else {"label": self.label}
        return {"image": self.image, **label, "patient": self.patient, "site": self.site, **dict(self.groups)}

    @property
    def positive_labels(self) -> list[int]:
        """The classes of the image: one, those with flag 1, or none without a label."""
        return [] if self.label is None else positive_classes(self.label)

    def without_label(self) -> Record:
        """The same image, whose label isn't known."""
        return Record(self.image, None, self.patient, self.site)

    def __getitem__(self, key: str) -> Any:
        return self.as_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())


@dataclass(frozen=True, eq=False)
class LeftOut(Record):
    """An image that is in no split, as it is a near duplicate of one of another split.

    That is a training image for a validation or test image, and one of these for an image without a label.

    Args:
        twin: locator of that image.
        similarity: of the two, 0 to 1.
        exact: whether they are the same picture.
        split: of the image.
    """

    twin: str = ""
    similarity: float = 1.0
    exact: bool = False
    split: str = ""

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> LeftOut:
        """A left-out image as a split file has it."""
        own = {name: entry[name] for name in cls.__dataclass_fields__ if name in entry and name != "groups"}
        groups = tuple((key, value) for key, value in entry.items() if key not in own)
        return cls(**{"image": "", "label": -1, **own}, groups=groups)

    def as_dict(self) -> dict[str, Any]:
        twin = {"twin": self.twin, "similarity": self.similarity, "exact": self.exact, "split": self.split}
        return {**super().as_dict(), **twin}


def positive_classes(label: int | Sequence[float]) -> list[int]:
    """The classes of a label: one, or those with flag 1."""
    return [index for index, flag in enumerate(label) if flag] if isinstance(label, Sequence) else [label]
