# SPDX-License-Identifier: Apache-2.0
"""Leaves out the images that have a near duplicate on the other side of a division."""

from __future__ import annotations

from collections.abc import Sequence

from dual_skd.data.near_duplicates.search import finder_if_wanted
from dual_skd.data.records.record import LeftOut, Record
from dual_skd.options.data import ReadOptions
from dual_skd.utils.wording import counted


class NearDuplicateFilter:
    """Removes from a split the images that have a near duplicate in another one; decodes each image once.

    Args:
        images: locators of all images.
        options: with ``keep_twins``, ``twin_search`` and ``twin_similarity``.
        command: of a check of these images, for the remedy in a note.
        notes: gets a sentence for each decision.

    Raises:
        InputError: an image can't be read.
    """

    def __init__(self, images: Sequence[str], options: ReadOptions, command: str, notes: list[str]) -> None:
        self.left_out: list[LeftOut] = []
        self._similarity = options.twin_similarity
        self._notes = notes
        self._finder = None
        if not options.keep_twins:
            self._finder = finder_if_wanted(
                images, spatial_dims=options.spatial_dims, search=options.twin_search, command=command, notes=notes
            )

    @property
    def searched(self) -> bool:
        """Whether near duplicates are searched for at all."""
        return self._finder is not None

    def without_copies(
        self, records: list[Record], known: Sequence[Record], split: str, among: str = "training"
    ) -> list[Record]:
        """The records of a split without those that have a near duplicate among the known ones, named in the note."""
        if self._finder is None:
            return records
        images, known_images = [record.image for record in records], [record.image for record in known]
        best = self._finder.find_best(images, known_images, min_similarity=self._similarity)
        found = [
            LeftOut(**vars(record), twin=twin.other, similarity=twin.similarity, exact=twin.exact, split=split)
            for record in records
            if (twin := best.get(record.image))
        ]
        if found:
            exact = sum(one.exact for one in found)
            those = f"{len(records)} {split} images"
            self._notes.append(
                f"{counted(len(found), f'of {those} was', f'of {those} were')} left out because of a twin in {among} "
                f"({exact} exact, {counted(len(found) - exact, 'near copy', 'near copies')})"
            )
        self.left_out += found
        return [record for record in records if record.image not in best]
