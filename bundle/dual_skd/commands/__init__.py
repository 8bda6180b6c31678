# SPDX-License-Identifier: Apache-2.0
"""Commands of ``dual-skd`` that only hand their arguments on to :mod:`dual_skd.api`."""
