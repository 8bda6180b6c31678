# SPDX-License-Identifier: Apache-2.0
"""Copies of images: short signatures, candidates, a fine comparison, and what is left out because of them."""
