# SPDX-License-Identifier: Apache-2.0
"""Writes, packs and checks what is published: the bundle, its configs, the site, the tutorials."""
