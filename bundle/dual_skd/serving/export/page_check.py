# SPDX-License-Identifier: Apache-2.0
"""Logits of a page in a browser, and the time from a file to its answer, measured in a process of its own.

    python -m dual_skd.serving.export.page_check JSON

takes what :mod:`dual_skd.serving.export.latency` takes. The working directory holds :data:`FILES`, too: the locators
of the images.
"""

from __future__ import annotations

import base64
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dual_skd.data.reading.locators import split_locator
from dual_skd.serving.export.browser import BrowserFailed, Page, opened_page
from dual_skd.serving.export.formats import FILES
from dual_skd.serving.export.worker import end_with_parent

_OF_FILE = """async ([file]) => {
    const found = await dualSkd.classified(file, {accept: true});
    return found.map(({image, logits, problem}) => ({image, problem: problem ?? "", logits: logits && [...logits[0]]}));
}"""
_OF_ARRAY = """async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return [...(await dualSkd.logitsOf(new Float32Array(bytes.buffer)))[0]];
}"""


def measure(source: Path, images: np.ndarray, locators: Sequence[str]) -> tuple[dict[str, Any], np.ndarray]:
    """Asks the page for each image: by its file, or by the prepared array where the page doesn't read the file.

    Returns:
        ``ms``: "1" -> median milliseconds from a file to its answer; ``files_read``, how many the page read by itself;
        and logits (N, K).

    Raises:
        BrowserFailed: the page doesn't work, or it asked a network for something.
    """
    logits, times = [], []
    with opened_page(source, source.with_name("profile")) as page:
        page.evaluate("dualSkd.loaded().then(() => true)")
        for array, locator in zip(images, locators, strict=True):
            began = time.perf_counter()
            found = by_file(page, locator)
            if found["problem"]:
                logits.append(page.call(_OF_ARRAY, base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()))
            else:
                times.append(1000 * (time.perf_counter() - began))
                logits.append(found["logits"])
        if page.requests:
            raise BrowserFailed(f"the page asks a network for {page.requests[0]}")
    ms = {"1": statistics.median(times) if times else None, "32": None}
    return {"ms": ms, "peak_mb": None, "files_read": len(times)}, np.array(logits)


def by_file(page: Page, locator: str) -> dict[str, Any]:
    """The page's answer for an image: ``problem``, ``logits``."""
    path, part = split_locator(locator)
    if path.is_dir():
        return {"problem": f"{path.name} is a folder"}
    found = page.with_files(_OF_FILE, [path])
    ending = f"#{part}" if part else ""
    of_frame = [one for one in found if one["image"].endswith(path.name + ending)]
    return of_frame[0] if of_frame else {"problem": found[0]["problem"] or f"{ending} is not what the page takes"}


def main(arguments: Sequence[str]) -> None:
    """Measures and writes what was found."""
    given = json.loads(arguments[0])
    source = Path(given["source"])
    found, logits = measure(
        source, np.load(given["images"], mmap_mode="r"), json.loads(source.with_name(FILES).read_text("utf-8"))
    )
    np.save(given["logits"], logits)
    Path(given["answer"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1:])
