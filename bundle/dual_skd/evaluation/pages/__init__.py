# SPDX-License-Identifier: Apache-2.0
"""What all HTML pages of this package share: escaped pieces, one style, one frame. No scripts, no links outside."""
