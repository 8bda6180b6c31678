# SPDX-License-Identifier: Apache-2.0
"""A disk that is full for every file that is written by way of a draft."""

from __future__ import annotations

from pathlib import Path

import pytest

from dual_skd.utils.files import Draft

FULL = Path("/dev/full")  # every write to it ends with ENOSPC
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs the device that is always full (Linux)")


def fill_disk(monkeypatch) -> None:
    """From now on every draft is a link to the device that is always full."""
    begin = Draft.__init__

    def begin_on_full_disk(self, *arguments, **named):
        begin(self, *arguments, **named)
        if self.file.parent == self.path.parent:  # that of a device is elsewhere
            self.file.unlink()
            self.file.symlink_to(FULL)

    monkeypatch.setattr(Draft, "__init__", begin_on_full_disk)
