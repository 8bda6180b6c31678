# SPDX-License-Identifier: Apache-2.0
"""From a path to divided lists of records: which image, which label, whose, in which split."""
