# SPDX-License-Identifier: Apache-2.0
"""Names of the benchmark's rows and data sets in pictures and text."""

from __future__ import annotations

ROWS = {
    "large": "large network",
    "native_lite0": "small network, natively pretrained",
    "single": "plain fine-tuning",
    "scratch": "random weights",
    "last_layers": "plain fine-tuning, last layers kept",
    "fast_single": "plain fine-tuning, rate 0.008",
    "label_smoothing": "label smoothing",
    "ema_weights": "averaged weights",
    "coupled": "dual model",
    "fast_coupled": "dual model, rate 0.008",
    "coupled_twins": "dual model, a copy as second network",
    "fine_tuned_coupled": "dual model, then fine-tuned",
    "smoothed_coupled": "dual model and label smoothing",
    "flipped_coupled": "dual model, mirrored images",
    "mutual": "mutual learning, usual settings",
    "dual": "second network follows, usual settings",
    "dual_strong": "second network follows",
    "same_rule": "mean teacher, usual settings",
    "same_rule_strong": "mean teacher",
    "random_auxiliary": "second network follows, from random weights",
    "frozen": "second network untrained",
    "distill": "large network as teacher",
    "label_free": "second network follows, first without labels",
    "adjusted_single": "plain fine-tuning, class frequencies known",
    "adjusted_coupled": "dual model, class frequencies known",
    "weighted_single": "plain fine-tuning, classes weighted",
    "weighted_coupled": "dual model, classes weighted",
    "noisy_single": "plain fine-tuning with noise",
    "noisy_coupled": "dual model with noise",
    "mixed_single": "plain fine-tuning, mixed spectra",
    "mixed_coupled": "dual model, mixed spectra",
    "compensated_single": "plain fine-tuning, compensated",
    "compensated_coupled": "dual model, compensated",
    "narrow_scratch": "thinned network, random weights",
    "narrow_single": "thinned layers",
    "narrow_consecutive": "thinned layers, consecutive channels",
    "narrow_importance": "thinned layers, largest channels",
    "narrow_dual": "thinned layers, second network follows",
    "narrow_coupled": "thinned layers, dual model",
}
"""Of the plan's rows. Unless the name says otherwise, a network starts from selected whole layers."""

DATA = {
    "chest_xray": "Chest X-rays",
    "lung_ct": "Lung CT",
    "brain_mri": "Brain MRI",
    "lung_ct_192": "Lung CT, 192 px",
    "lung_ct_256": "Lung CT, 256 px",
    "chest_xray_224": "Chest X-rays, 224 px",
    "lung_ct_224": "Lung CT, 224 px",
    "brain_mri_224": "Brain MRI, 224 px",
    "brain_mri_vit": "Brain MRI, ViT",
    "brain_volumes": "Brain volumes",
    "brain_sites": "Brain volumes, by hospital",
    "brain_grade": "Grade of a glioma",
}
"""Of the plan's data sets; sites or folds of one have its name."""
VOLUMES = ("brain_volumes", "brain_sites", "brain_grade")
