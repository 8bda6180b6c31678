# SPDX-License-Identifier: Apache-2.0
"""Which images without labels are worth labelling next."""
