# SPDX-License-Identifier: Apache-2.0
"""A federation on one computer: a data set divided by hospital, and the job that NVFlare runs."""
