# SPDX-License-Identifier: Apache-2.0
"""Looks at files from strangers without running anything of them."""
