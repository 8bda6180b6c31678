# SPDX-License-Identifier: Apache-2.0
"""Near duplicates of images: short signatures, candidate pairs, their similarity."""
