# SPDX-License-Identifier: Apache-2.0
"""Decides whether a data set is searched for near duplicates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dual_skd.options.choices import TwinSearch

if TYPE_CHECKING:
    from dual_skd.data.near_duplicates.finder import NearDuplicateFinder

logger = logging.getLogger(__name__)

AUTO_MAX_IMAGES = 20_000  # images that "auto" decodes before a run starts: a minute or two


def finder_if_wanted(
    images: Sequence[str], *, spatial_dims: int, search: TwinSearch, command: str, notes: list[str]
) -> NearDuplicateFinder | None:
    """Builds a finder of near duplicates, or returns None where the search is off or would take long.

    Args:
        images: locators.
        spatial_dims: 2 for images, 3 for volumes.
        search: "always", "never", or "auto": only if at most :data:`AUTO_MAX_IMAGES` images have to be decoded.
        command: that searches and remembers, for the remedy (:func:`~dual_skd.utils.wording.check_command`).
        notes: gets a sentence when there is no search.

    Raises:
        InputError: an image can't be read.
    """
    if search == "never":
        notes.append(f"{len(images)} images were not searched for copies across the splits (twin_search is never)")
        return None
    from dual_skd.data.near_duplicates import finder, signature_cache  # these load the readers, so only if needed

    if search == "auto" and len(images) > AUTO_MAX_IMAGES:
        missing = len(images) - signature_cache.count_stored(images, spatial_dims=spatial_dims)
        if missing > AUTO_MAX_IMAGES:
            note = (
                f"{len(images)} images were not searched for copies across the splits, as {missing} of them would have "
                f"to be decoded; {command} does it once and remembers it, or set twin_search to always"
            )
            notes.append(note)
            logger.warning("%s.", note)
            return None
    found = finder.NearDuplicateFinder(images, spatial_dims=spatial_dims)
    found.refuse_unreadable()
    return found
