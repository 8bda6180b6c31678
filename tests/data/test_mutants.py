# SPDX-License-Identifier: Apache-2.0
"""Damaged files: each is read or refused by name, within time and memory, and none ends the process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dual_skd.errors import InputError
from scripts.measure import mutants

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")


@pytest.mark.parametrize(
    ("formats", "count"), [("png", 100), ("jpeg", 100), ("tiff", 150), ("dicom", 300), ("nifti", 100), ("npz", 60),
                           ("csv", 60), ("json", 60)]
)  # fmt: skip
def test_mutants_are_read_or_refused_by_name_within_time_and_memory(tmp_path, formats, count):
    found = mutants.measure(tmp_path, [formats], [20240229], count)
    assert not list(filter(mutants.failed, found)) and len(found) == count
    refused = sum(one["outcome"] == "refused" for one in found)
    # damage to pixels can go unseen, damage to headers and lengths can't
    assert refused > count / 4 and (refused < count or formats == "png")
    assert sum(one.get("log", 0) for one in found) < 100  # libraries don't flood the log
    again = mutants.measure(tmp_path, [formats], [20240229], count)
    assert again == found and mutants.summary(found).splitlines()[-1].startswith(f"| {formats} | {count} |")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "read"),
        (InputError("a.png is bad."), "refused"),
        (InputError("Bad."), "unnamed"),
        (KeyError(), "unnamed"),
    ],
)
def test_a_refusal_counts_with_the_name_of_the_file_alone(error, outcome):
    def read(path: Path) -> None:
        if error is not None:
            raise error

    assert mutants._outcome(read, Path("/x/a.png"))[0] == outcome
