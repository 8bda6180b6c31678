# SPDX-License-Identifier: Apache-2.0
"""From a file, whatever its format, to the tensor that a network takes."""
