# SPDX-License-Identifier: Apache-2.0
"""What ``dual-skd check`` finds out about a data set."""
