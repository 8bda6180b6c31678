# SPDX-License-Identifier: Apache-2.0
"""Networks in tests are so small that threads only cost time, and one thread sums in one order."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
