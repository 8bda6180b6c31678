# SPDX-License-Identifier: Apache-2.0
"""Small experiments, each about one choice. Their tables stand in docs/experiments.md, method.md and settings.md."""
