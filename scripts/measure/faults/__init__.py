# SPDX-License-Identifier: Apache-2.0
"""Faults on purpose, one row of a table each, and what is left after them: ``python -m scripts.measure.faults.run``.

* ``process`` starts a command in a forked process, where Python, PyTorch and MONAI are imported already.
* ``files`` compares the folders that commands leave.
* ``bench`` is where a fault is tried: tiny data, tiny networks, a fresh folder, what an undisturbed command leaves.
* ``kills``, ``places``, ``data``, ``computer``, ``resuming`` and ``several`` have the faults.
"""

from __future__ import annotations
