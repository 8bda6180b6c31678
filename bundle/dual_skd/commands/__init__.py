# SPDX-License-Identifier: Apache-2.0
"""Commands of ``dual-skd`` that reach into more than one room."""
