# SPDX-License-Identifier: Apache-2.0
"""When near duplicates of training images are searched for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dual_skd.options.choices import TwinSearch
from dual_skd.utils.wording import check_command

if TYPE_CHECKING:
    from dual_skd.data.near_duplicates.finder import TwinFinder

logger = logging.getLogger(__name__)

MOST = 20_000  # images that "auto" decodes before a run starts: a minute or two


def find_twins(
    images: Sequence[str], *, spatial_dims: int, search: TwinSearch, dataset_dir: str | Path, notes: list[str]
) -> TwinFinder | None:
    """Decodes images for a search for copies, unless that would take long and wasn't asked for.

    Args:
        images: locators.
        spatial_dims: 2 for images, 3 for volumes.
        search: "always", "never", or "auto" for at most :data:`MOST` images that no earlier search has decoded.
        dataset_dir: what the user gave, for the remedy.
        notes: gets a sentence when there is no search.

    Raises:
        InputError: an image can't be read.
    """
    if search == "never":
        notes.append(f"{len(images)} images were not searched for copies across the splits (twin_search is never)")
        return None
    from dual_skd.data.near_duplicates import finder as twins  # loads the readers, so only where they are wanted

    if search == "auto" and len(images) > MOST:
        unknown = len(images) - twins.count_cached(images, spatial_dims=spatial_dims)
        if unknown > MOST:
            note = (
                f"{len(images)} images were not searched for copies across the splits, as {unknown} of them would have "
                f"to be decoded; {check_command(dataset_dir)} does it once and remembers it, or set "
                "twin_search to always"
            )
            notes.append(note)
            logger.warning("%s.", note)
            return None
    finder = twins.TwinFinder(images, spatial_dims=spatial_dims)
    finder.refuse_unreadable()
    return finder
