# SPDX-License-Identifier: Apache-2.0
"""main.py of an app of MONAI Label: copy it beside the folder ``model`` that holds the unzipped bundle."""

import sys
from pathlib import Path

sys.path.insert(0, str(min((Path(__file__).parent / "model").glob("*classification*"))))  # the code of the bundle

from dual_skd.serving.monai_label_app import DualSkdApp  # noqa: F401  # which MONAI Label finds here
