# SPDX-License-Identifier: Apache-2.0
"""Words that options take where there are only so many; the tables that say what they stand for have the same keys."""

from __future__ import annotations

from typing import Literal

Method = Literal["coupled", "dual", "mutual", "frozen", "same_rule", "random_auxiliary", "distill", "single", "scratch"]
Update = Literal["ema", "mutual", "frozen", "none"]
ElementRule = Literal["uniform", "consecutive", "complement", "random", "importance"]
LayerRule = Literal["first", "last", "even"]
SelectionMode = Literal["structured", "reference"]
SelectionCheck = Literal["strict", "off"]
Loss = Literal["cross_entropy", "focal", "bce"]
UnlabelledLoss = Literal["hard", "soft"]
Metric = Literal["accuracy", "balanced_accuracy", "macro_auc", "f1", "ece", "nll", "brier"]
Window = Literal["auto", "percentile", "zscore", "file", "lung", "mediastinum", "brain", "bone", "soft_tissue", "wide"]
Fit = Literal["pad", "crop", "stretch"]
Cache = Literal["auto", "memory", "disk", "none"]
TwinSearch = Literal["auto", "always", "never"]
BadFile = Literal["error", "skip"]
BadNumber = Literal["stop", "skip", "ignore"]
UnexpectedInput = Literal["refuse", "accept"]
Per = Literal["image", "patient"]
Combine = Literal["mean", "max"]
Strategy = Literal["badge", "disagreement", "uncertainty", "random"]
Recalibrate = Literal["none", "intercept", "slope"]
Corruption = Literal["noise", "blur", "contrast", "gamma", "jpeg", "resolution", "rotation"]
