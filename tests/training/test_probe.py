# SPDX-License-Identifier: Apache-2.0
"""The frozen-feature probe: ridge regression as scikit-learn has it, and no look at what is judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor, nn

from dual_skd.data import load_records
from dual_skd.errors import InputError
from dual_skd.options import training
from dual_skd.training import probe as module
from dual_skd.training.probe import ProbeImages, frozen_features, out_of_fold, probe, read_probe_images

N = 60
FOLDS = torch.arange(N) % 4
TARGETS = torch.nn.functional.one_hot(torch.arange(N) % 3 % 2, 2).double()


def noise(columns: int, seed: int = 0) -> Tensor:
    return torch.randn(N, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def images(targets: Tensor = TARGETS) -> ProbeImages:
    return ProbeImages(torch.zeros(N, 1, 2, 2), targets, [str(place // 2) for place in range(N)], FOLDS)


def test_ridge_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    features = noise(7)
    monkeypatch.setattr(module, "STRENGTHS", (0.3,))
    standard = (features - features.mean(0)) / features.std(0)
    kernel = (standard @ standard.T / 7).numpy()
    found, targets = out_of_fold(features, TARGETS, FOLDS).numpy(), TARGETS.numpy()
    for fold in range(4):
        rest, judged = (FOLDS != fold).numpy(), (FOLDS == fold).numpy()
        mean = targets[rest].mean(0)
        wanted = KernelRidge(alpha=0.3, kernel="precomputed").fit(kernel[np.ix_(rest, rest)], targets[rest] - mean)
        np.testing.assert_allclose(found[judged], wanted.predict(kernel[np.ix_(judged, rest)]) + mean, atol=1e-9)


def test_the_classes_of_a_fold_never_reach_its_own_predictions() -> None:
    features, other = noise(5), TARGETS.clone()
    other[FOLDS == 2] = 1 - other[FOLDS == 2]
    same = out_of_fold(features, TARGETS, FOLDS)[FOLDS == 2], out_of_fold(features, other, FOLDS)[FOLDS == 2]
    torch.testing.assert_close(*same, rtol=0, atol=0)
    assert not torch.equal(out_of_fold(features, TARGETS, FOLDS), out_of_fold(features, other, FOLDS))


def test_features_that_tell_the_classes_apart_score_one_and_noise_about_a_half() -> None:
    good = probe(torch.cat([noise(20), TARGETS[:, :1]], 1), images())
    assert good.value == 1
    chance = probe(noise(20), images())
    assert chance.low is not None and chance.low < 0.5 < chance.high < 0.85


def test_features_without_any_difference_are_no_failure() -> None:
    assert probe(torch.ones(N, 3, dtype=torch.float64), images()).value == 0.5


def test_features_are_what_enters_the_classifier_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = torch.randn(70, 1, 2, 2)
    torch.testing.assert_close(frozen_features(network, batch), (batch.flatten(1) / (1 + 1e-5) ** 0.5).double())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, patients in (("train", 12), ("test", 4)):
        for patient in range(patients):
            for number in range(2):
                shade = 40 * (patient % 2) + patient + (100 if split == "test" else 0)
                place = tmp_path / split / ("ill" if patient % 2 else "well") / f"{split}{patient}_{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(patient).integers(0, 60, (16, 16)) + shade + number
                Image.fromarray(pixels.astype(np.uint8)).save(place)
    return tmp_path


PATTERN = r"([a-z]+\d+)_\d\.png"


def test_only_training_images_are_drawn_and_patients_stay_in_one_fold(folder: Path, monkeypatch) -> None:
    options = training(dataset_dir=str(folder), image_size=16, patient_pattern=PATTERN, seed=3)
    data = load_records(folder, patient_pattern=PATTERN, seed=3, keep_twins=True)
    of_training = {record.patient for record in data.train}
    found = read_probe_images(data, options)
    assert found.images.shape == (len(data.train), 1, 16, 16) and set(found.patients) == of_training
    assert len({*zip(found.patients, found.folds.tolist(), strict=True)}) == len(of_training)  # one fold each
    ill = {record.patient for record in data.train if data.class_names[record.label] == "ill"}
    assert [data.class_names[row.argmax()] == "ill" for row in found.targets] == [
        name in ill for name in found.patients
    ]
    monkeypatch.setattr(module, "MOST_IMAGES", 12)
    fewer = read_probe_images(data, options)
    assert len(fewer.images) == 12 and set(fewer.patients) < of_training


def test_a_class_of_two_patients_is_refused(folder: Path) -> None:
    data = load_records(folder, patient_pattern=PATTERN, keep_twins=True, val_fraction=0.0)
    ill = [record for record in data.train if data.class_names[record.label] == "ill"]
    gone = {one.patient for one in ill[4:]}
    data.splits["train"] = [one for one in data.train if one.patient not in gone]
    with pytest.raises(InputError, match="3 folds need as many patients of every class, but there are 2 of ill"):
        read_probe_images(data, training(image_size=16))
