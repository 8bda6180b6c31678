# SPDX-License-Identifier: Apache-2.0
"""The writers of small DICOM files as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_files import write_dicom, write_series


@pytest.fixture
def dicom_file() -> Callable[..., Path]:
    return write_dicom


@pytest.fixture
def dicom_series() -> Callable[..., Path]:
    return write_series
