# SPDX-License-Identifier: Apache-2.0
"""Makes ``docs/example``: the report of a run on the demo data, and a picture of its beginning.

A test fails where the example isn't what today's code writes (tests/evaluation/report/test_structure.py). Then:

    dual-skd train demo -o /tmp/demo
    dual-skd evaluate /tmp/demo
    python -m scripts.release.example_report /tmp/demo
    chromium --headless --no-sandbox --hide-scrollbars --window-size=1200,1700 \
        --screenshot=/tmp/demo/shot.png docs/example/report.html
    python -m scripts.release.example_report /tmp/demo --picture /tmp/demo/shot.png
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from scripts import ROOT

EXAMPLE = ROOT / "docs" / "example"


def copy_report(run: Path, folder: Path) -> Path:
    """Copies the report of a run, if it tells nothing of the computer that wrote it.

    Raises:
        SystemExit: there is no report, or it names the folder of the run or the home of its user.
    """
    source = run / "report" / "report.html"
    if not source.is_file():
        raise SystemExit(f"There is no {source}; make it: dual-skd evaluate {run}")
    page = source.read_text(encoding="utf-8")
    words = re.sub(r'base64,[^"]*', "", page)
    if told := [place for place in (str(run.resolve().parent), str(Path.home())) if f"{place}/" in words]:
        raise SystemExit(f"{source} names {told[0]}; write it again without --show-names: dual-skd report {run}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def mark_picture(picture: Path, page: Path) -> Path:
    """Saves a screenshot beside its page, with the page's generator and SHA-256 in its text."""
    source = page.read_bytes()
    marks = PngInfo()
    marks.add_text("generator", re.findall(r'name="generator" content="([^"]*)"', source.decode())[0])
    marks.add_text("page", hashlib.sha256(source).hexdigest())
    with Image.open(picture) as shot:
        shot.convert("RGB").quantize(128).save(page.with_suffix(".png"), pnginfo=marks, optimize=True)
    return page.with_suffix(".png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Copies the report, or adds its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of an evaluated run on the demo data")
    parser.add_argument("--picture", type=Path, help="a screenshot of the page that was copied before")
    parser.add_argument("--output", type=Path, default=EXAMPLE, help="where to (default: docs/example)")
    args = parser.parse_args(arguments)
    made = (
        mark_picture(args.picture, args.output / "report.html") if args.picture else copy_report(args.run, args.output)
    )
    sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
