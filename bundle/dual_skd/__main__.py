# SPDX-License-Identifier: Apache-2.0
"""``python -m dual_skd``: the command ``dual-skd``."""

from __future__ import annotations

import sys

from dual_skd.cli.dispatch import main

if __name__ == "__main__":
    sys.exit(main())
