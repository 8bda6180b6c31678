# SPDX-License-Identifier: Apache-2.0
"""When copies of training images are looked for, and what becomes of the images that have one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dual_skd.errors import InputError
from dual_skd.options.choices import TwinSearch
from dual_skd.utils.wording import check_command, counted

if TYPE_CHECKING:
    from dual_skd.data.near_duplicates.finder import TwinFinder

logger = logging.getLogger(__name__)

SEARCHES = get_args(TwinSearch)
MOST = 20_000  # images that "auto" decodes before a run starts: a minute or two


def find_twins(
    images: Sequence[str], *, spatial_dims: int, search: str, dataset_dir: str | Path, notes: list[str]
) -> TwinFinder | None:
    """Decodes images for a search for copies, unless that would take long and wasn't asked for.

    Args:
        images: locators.
        spatial_dims: 2 for images, 3 for volumes.
        search: "always", "never", or "auto" for at most :data:`MOST` images that no earlier search has decoded.
        dataset_dir: what the user gave, for the remedy.
        notes: gets a sentence when there is no search.

    Raises:
        InputError: an image can't be read, or an unknown ``search``.
    """
    if search not in SEARCHES:
        raise InputError(f"twin_search is {search!r}; use one of {', '.join(SEARCHES)}.")
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


def leave_out_twins(
    finder: TwinFinder,
    records: list[dict],
    known: list[dict],
    *,
    similarity: float,
    split: str,
    notes: list[str],
    left_out: list[dict],
) -> list[dict]:
    """Returns the records without a twin among ``known`` ones; the others go to ``left_out``, and a note counts them.

    Args:
        finder: knows all the images.
        records: of one split.
        known: what the network is trained on.
        similarity: likeness, 0 to 1, from which two images count as twins.
        split: name of the split, written into the records that are left out.
        notes: gets a sentence.
        left_out: gets the records with a twin, with "split", "twin", "similarity" and "exact".

    Raises:
        InputError: for a similarity out of range.
    """
    if not 0 < similarity <= 1:
        raise InputError(f"twin_similarity must be above 0 and at most 1, found {similarity}.")
    kept, twins = finder.drop_twins(records, known, similarity=similarity)
    if twins:
        exact = sum(bool(record["exact"]) for record in twins)
        those = f"{len(records)} {split} images"
        notes.append(
            f"{counted(len(twins), f'of {those} was', f'of {those} were')} left out because of a twin in training "
            f"({exact} exact, {counted(len(twins) - exact, 'near copy', 'near copies')})"
        )
        left_out += [{**record, "split": split} for record in twins]
    return kept
