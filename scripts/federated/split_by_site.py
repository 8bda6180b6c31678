# SPDX-License-Identifier: Apache-2.0
"""Divides a data set by hospital: one ``datalist.csv`` per value of a column; no image is copied.

    python -m scripts.federated.split_by_site DATA SITES --column machine
    python -m scripts.federated.split_by_site DATA SITES --deal 4   # for a trial: patients dealt out among four sites

Run it from the root of the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dual_skd.data.records.rows import cell_text
from dual_skd.data.records.sources import find_table
from dual_skd.data.records.table_images import locate_images
from dual_skd.data.records.tables import require_columns
from dual_skd.errors import InputError, sentence_of
from dual_skd.utils.files import write_csv
from dual_skd.utils.wording import counted


def split_by_site(
    data: str | Path,
    target: str | Path,
    *,
    column: str = "site",
    label: str = "label",
    least: int = 1,
    deal: int | None = None,
) -> dict[str, Path]:
    """Writes a table per site, with all columns and the images' absolute paths.

    Args:
        data: a table of images, or the folder of one.
        target: folder of the new folders, which have the names of the sites.
        column: the column that tells the site.
        label: the column of the labels, whose words the tables share.
        least: sites with fewer images are left out.
        deal: in place of the column, so many sites ``site-1``, ``site-2``, ... that each get patients of every label.

    Returns:
        site -> its table.

    Raises:
        InputError: no table or column, a row without site, a name that can't be that of a folder, or no site is left.
    """
    table = find_table(Path(data))
    if table is None:
        raise InputError(f"{data} has no table of images; give a table (datalist.csv) with a column {column}.")
    require_columns(table, ["image", *([] if deal else [column])])
    dealt = _dealt(table.entries, label, deal) if deal else {}
    images = locate_images(table, list(enumerate(table.entries)))
    rows = defaultdict(list)
    for number, (entry, image) in enumerate(zip(table.entries, images, strict=True)):
        site = dealt[_patient(entry)] if deal else cell_text(entry.get(column))
        if site != os.path.basename(site) or site in ("", ".", ".."):
            raise InputError(
                f"{table.path}, entry {number}: the {column} is {site!r}, which can't be the name of a folder; correct "
                "or remove the entry."
            )
        cells = {name: cell_text(entry.get(name)) for name in table.columns}
        named = table.numbers.get(cells.get(label, ""))
        rows[site].append(cells | {"image": image} | ({label: named} if named else {}))
    kept = {site: found for site, found in sorted(rows.items()) if len(found) >= least}
    if not kept:
        raise InputError(f"No {column} of {table.path} has {least} images; lower --least.")
    written = {}
    for site, found in kept.items():
        written[site] = Path(target) / site / "datalist.csv"
        write_csv(written[site], [table.columns, *(list(row.values()) for row in found)], private=True)
    return written


def _patient(entry: Mapping[str, Any]) -> str:
    """An entry's patient; an image of an unknown patient is a patient of its own."""
    return cell_text(entry.get("patient")) or cell_text(entry.get("image"))


def _dealt(entries: Sequence[Mapping[str, Any]], label: str, sites: int) -> dict[str, str]:
    """Deals patients out label after label; the digest shuffles without a seed, whatever order the table has."""
    labels = {_patient(entry): cell_text(entry.get(label)) for entry in entries}
    order = sorted(labels, key=lambda name: (labels[name], hashlib.sha256(name.encode()).digest()))
    return {name: f"site-{place % sites + 1}" for place, name in enumerate(order)}


def main(words: list[str] | None = None) -> int:
    """Divides, and says what each site has."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.federated.split_by_site", description=__doc__.split("\n")[0]
    )
    parser.add_argument("data", type=Path, help="a table of images, or the folder of one")
    parser.add_argument("target", type=Path, help="folder of the sites' folders")
    parser.add_argument("--column", default="site", help="column that tells the site (default: site)")
    parser.add_argument("--label", default="label", help="column of the labels (default: label)")
    parser.add_argument("--least", type=int, default=1, help="leave out sites with fewer images (default: 1)")
    parser.add_argument("--deal", type=int, metavar="N", help="for a trial: deal the patients out among N sites")
    args = parser.parse_args(words)
    try:
        written = split_by_site(
            args.data, args.target, column=args.column, label=args.label, least=args.least, deal=args.deal
        )
    except InputError as error:
        sys.stderr.write(f"Error: {sentence_of(error)}\n")
        return 1
    for site, path in written.items():
        found = find_table(path)
        labels = Counter(entry.get(args.label, "") for entry in found.entries) if found else Counter()
        shares = ", ".join(f"{name} {number}" for name, number in sorted(labels.items()))
        sys.stdout.write(f"{site}: {counted(sum(labels.values()), 'image')} ({shares}): {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
