# SPDX-License-Identifier: Apache-2.0
"""Files that can't be used: an error that names the first, or a list of those that were skipped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dual_skd.data.records.frames import rows_of_frames
from dual_skd.errors import InputError
from dual_skd.options.choices import BadFile
from dual_skd.utils.wording import check_command, counted

if TYPE_CHECKING:
    from dual_skd.data.records.rows import Row
    from dual_skd.options.data import ReadOptions

logger = logging.getLogger(__name__)

POLICIES = get_args(BadFile)


def require_policy(on_bad_file: str) -> None:
    """Raises an ``InputError`` that lists the valid words unless ``on_bad_file`` is one of them."""
    if on_bad_file not in POLICIES:
        raise InputError(f"on_bad_file is {on_bad_file!r}; use one of {', '.join(POLICIES)}.")


def usable_rows(
    rows: Iterable[Row], options: ReadOptions, dataset_dir: str | Path
) -> tuple[list[Row], list[dict[str, str]], list[str]]:
    """The images that can be used, of files with several frames the chosen ones, and what is wrong with the others.

    With ``on_bad_file`` "error" the beginning and the end of every file are looked at, some 10,000 in a second, and
    a bad one is refused. With "skip" every file is decoded, so that damage in the middle is found too. With None all
    images are taken.

    Args:
        rows: images of a data set.
        options: with ``frame``, ``spatial_dims`` and ``on_bad_file``.
        dataset_dir: what the user gave, for the remedy.

    Returns:
        (usable rows, {"image", "problem", "remedy"} of the others, notes on both).

    Raises:
        InputError: with "error", for the first bad file; for a frame that a file doesn't have.
    """
    rows, notes = rows_of_frames(rows, options.frame_in_2d)
    if options.on_bad_file is None:
        return rows, [], notes
    from dual_skd.data.reading import inspection  # loads the readers, so only where files are looked at

    images = [row.image for row in rows]
    if options.on_bad_file == "error":
        facts = inspection.quick_facts_of_all(images, options.spatial_dims)
    else:
        facts = list(inspection.inspect_all(images, options.spatial_dims).values())
    bad = {one.image: one for one in facts if one.problem}
    if bad and options.on_bad_file == "error":
        first = next(iter(bad.values()))
        others = f" (and {counted(len(bad) - 1, 'other file')} can't be used)" if len(bad) > 1 else ""
        asked = "columns, classes and images without labels" if options.unlabelled else "columns and classes"
        raise InputError(
            f"{first.image}: {first.detail}{others}; {first.remedy}, or --on-bad-file skip; "
            f"{check_command(dataset_dir)}, with this command's options for {asked}, lists all such files."
        )
    unusable = [{"image": image, "problem": one.detail, "remedy": one.remedy} for image, one in bad.items()]
    for one in unusable:
        logger.warning("Skipped: %s: %s; %s.", one["image"], one["problem"], one["remedy"])
    return [row for row in rows if row.image not in bad], unusable, [*notes, *_skipped(unusable)]


def _skipped(unusable: Sequence[dict]) -> list[str]:
    """At most one note, which counts the files that were skipped by problem."""
    if not unusable:
        return []
    counts = Counter(one["problem"] for one in unusable).most_common(3)
    kinds = "; ".join(f"{problem} ({count})" for problem, count in counts)
    subject = counted(len(unusable), "file that can't be used was", "files that can't be used were")
    return [f"{subject} skipped, see the list above and in datalist.json: {kinds}"]
