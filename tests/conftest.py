# SPDX-License-Identifier: Apache-2.0
"""What all tests share: one thread, and a cache of their own."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)  # networks here are so small that threads only cost time, and one thread sums in one order


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Signatures of images and unpacked archives stay out of the user's cache folder, and none is found there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
