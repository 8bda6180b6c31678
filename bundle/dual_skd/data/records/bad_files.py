# SPDX-License-Identifier: Apache-2.0
"""What becomes of a file that can't be used: an error that names it, or a listed gap in the result."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dual_skd.errors import InputError
from dual_skd.options.choices import BadFile
from dual_skd.utils.wording import check_command, counted

if TYPE_CHECKING:
    from dual_skd.data.records.rows import Row

logger = logging.getLogger(__name__)

POLICIES = get_args(BadFile)


def require_policy(on_bad_file: str) -> None:
    """Raises an ``InputError`` that lists the valid words unless ``on_bad_file`` is one of them."""
    if on_bad_file not in POLICIES:
        raise InputError(f"on_bad_file is {on_bad_file!r}; use one of {', '.join(POLICIES)}.")


def usable_rows(
    rows: Sequence[Row], *, spatial_dims: int, on_bad_file: str | None, dataset_dir: str | Path
) -> tuple[list[Row], list[dict]]:
    """The rows whose file can be used, and what is wrong with the others.

    Args:
        rows: images of a data set.
        spatial_dims: 2 for images, 3 for volumes.
        on_bad_file: "error" looks at the beginning and the end of every file, some 10,000 in a second, and refuses
            bad ones; "skip" decodes every file, so that damage in the middle is found too; None takes all rows.
        dataset_dir: what the user gave, for the remedy.

    Returns:
        (usable rows, {"image", "problem", "remedy"} of the others).

    Raises:
        InputError: with "error", for the first bad file; for another ``on_bad_file``.
    """
    if on_bad_file is None:
        return list(rows), []
    require_policy(on_bad_file)
    from dual_skd.data.reading import inspection  # loads the readers, so only where files are looked at

    images = [row.image for row in rows]
    if on_bad_file == "error":
        facts = inspection.quick_facts_of_all(images, spatial_dims)
    else:
        facts = list(inspection.inspect_all(images, spatial_dims).values())
    bad = {one.image: one for one in facts if one.problem}
    if bad and on_bad_file == "error":
        first = next(iter(bad.values()))
        others = f" (and {counted(len(bad) - 1, 'other file')} can't be used)" if len(bad) > 1 else ""
        raise InputError(
            f"{first.image}: {first.detail}{others}; {first.remedy}, or --on-bad-file skip; "
            f"{check_command(dataset_dir)}, with this command's options for columns and classes, lists all such files."
        )
    unusable = [{"image": image, "problem": one.detail, "remedy": one.remedy} for image, one in bad.items()]
    for one in unusable:
        logger.warning("Skipped: %s: %s; %s.", one["image"], one["problem"], one["remedy"])
    return [row for row in rows if row.image not in bad], unusable


def skipped(unusable: Sequence[dict]) -> list[str]:
    """A note that counts the files that were skipped, by problem."""
    if not unusable:
        return []
    counts = Counter(one["problem"] for one in unusable).most_common(3)
    kinds = "; ".join(f"{problem} ({count})" for problem, count in counts)
    subject = counted(len(unusable), "file that can't be used was", "files that can't be used were")
    return [f"{subject} skipped, see the list above and in datalist.json: {kinds}"]
