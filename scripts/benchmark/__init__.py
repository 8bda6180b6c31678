# SPDX-License-Identifier: Apache-2.0
"""The evidence: methods compared over data sets, shares of the training images and seeds.

``run`` trains and evaluates the cells of ``plan.json``, ``store`` keeps what they found, ``results`` reads it, and
``report`` writes the tables and pictures of docs/results from it. ``probes`` are smaller experiments.
"""
