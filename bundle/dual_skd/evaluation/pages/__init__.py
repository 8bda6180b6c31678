# SPDX-License-Identifier: Apache-2.0
"""What all pages of this package share: templates in which every value is escaped, and one style."""
