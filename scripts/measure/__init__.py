# SPDX-License-Identifier: Apache-2.0
"""Measures time, memory, what a killed run leaves, and how many near-duplicates are found."""
