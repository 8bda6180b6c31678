# SPDX-License-Identifier: Apache-2.0
"""Copies the report of a run on the demo data to the site, if it tells nothing of the computer that wrote it.

    dual-skd train demo -o OUT
    dual-skd evaluate OUT
    python -m scripts.release.example_report OUT --output SITE/example

The picture of it that the README shows, ``docs/example/report.png``, is a screenshot, reduced to 128 colours:

    chromium --headless --hide-scrollbars --window-size=1200,1700 --screenshot=shot.png SITE/example/report.html
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path


def copy_report(run: Path, folder: Path) -> Path:
    """Copies the report of a run.

    Raises:
        SystemExit: there is no report, or it names the folder of the run or the home of its user.
    """
    source = run / "report" / "report.html"
    if not source.is_file():
        raise SystemExit(f"There is no {source}; make it: dual-skd evaluate {run}")
    page = source.read_text(encoding="utf-8")
    words = re.sub(r'base64,[^"]*', "", page)
    if named := [place for place in (str(run.resolve().parent), str(Path.home())) if f"{place}/" in words]:
        raise SystemExit(f"{source} names {named[0]}; write it again without --show-names: dual-skd report {run}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Copies the report and prints where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of an evaluated run on the demo data")
    parser.add_argument("--output", type=Path, required=True, help="folder to copy it to")
    args = parser.parse_args(arguments)
    sys.stdout.write(f"{copy_report(args.run, args.output)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
