# SPDX-License-Identifier: Apache-2.0
"""From a trained model and images to answers: in Python, on the command line, and as rows of ``predictions.csv``."""
