# SPDX-License-Identifier: Apache-2.0
"""What a trained student becomes outside of training: files for other runtimes, and reports for archives."""
