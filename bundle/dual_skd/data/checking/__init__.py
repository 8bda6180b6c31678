# SPDX-License-Identifier: Apache-2.0
"""What ``python -m dual_skd check`` finds out about a data set."""
