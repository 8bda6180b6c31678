# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.metrics.predictions import read_predictions, write_predictions

NAMES = ["normal", "nodule"]
P = np.array([[0.75, 0.25], [0.125, 0.875]])


def test_a_table_has_its_first_columns_always_and_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "out" / "predictions.csv"
    write_predictions(path, ["a, 1.png", "b.png"], np.array([0, 0]), P, NAMES, extra={"uncertainty": ["0.8", "0.5"]})
    assert path.read_text().splitlines()[0] == "image,label,predicted,p_normal,p_nodule,uncertainty"
    table = read_predictions(path)
    assert table.images == ["a, 1.png", "b.png"] and table.class_names == NAMES
    assert table.labels.tolist() == [0, 0] and table.probabilities.tolist() == P.tolist()
    assert table.columns == {"predicted": ["normal", "nodule"], "uncertainty": ["0.8", "0.5"]}


def test_the_nll_of_a_very_sure_and_wrong_prediction_survives_the_table(tmp_path):
    p = np.array([[1 - 1e-12, 1e-12]])
    write_predictions(tmp_path / "p.csv", ["a"], np.array([1]), p, NAMES)
    assert -np.log(read_predictions(tmp_path / "p.csv").probabilities[0, 1]) == pytest.approx(27.631, abs=1e-3)


def test_several_labels_per_image_are_joined_and_parted(tmp_path):
    labels = np.array([[1, 1], [0, 0]])
    write_predictions(
        tmp_path / "p.csv", ["a", "b"], labels, np.array([[0.6, 0.7], [0.1, 0.9]]), NAMES, multi_label=True
    )
    assert (tmp_path / "p.csv").read_text().splitlines()[1].startswith("a,normal|nodule,normal|nodule,0.6")
    assert read_predictions(tmp_path / "p.csv", multi_label=True).labels.tolist() == labels.tolist()


def test_a_label_that_could_not_be_parted_is_not_written(tmp_path):
    names = ["left|right", "nodule"]
    with pytest.raises(InputError, match="No label may hold .* found left.right: rename the class"):
        write_predictions(tmp_path / "p.csv", ["a", "b"], np.eye(2, dtype=int), P, names, multi_label=True)
    assert not (tmp_path / "p.csv").exists()
    write_predictions(tmp_path / "p.csv", ["a", "b"], np.array([0, 1]), P, names)  # of one label per image it may
    assert read_predictions(tmp_path / "p.csv").class_names == names


def test_a_file_that_is_no_such_table_is_named(tmp_path):
    path = tmp_path / "p.csv"
    with pytest.raises(InputError, match="No table of predictions"):
        read_predictions(path)
    for text, words in (
        ("image,label\n", "has no images"),
        ("image,label,predicted\na,b,c\n", "no columns p_"),
        ("image,label,p_normal\na,nodule,0.5\n", "'nodule'"),
        ("image,label,p_normal\na,normal,x\n", "'x'"),
        ("image,label,p_normal\na,normal,1\nb,normal", "image 2 has more or fewer fields"),
        ("image,label,p_normal,uncertainty\na,normal,1", "image 1 has more or fewer fields"),
        ("image,label,p_normal\na,normal,1,1\n", "image 1 has more or fewer fields"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_predictions(path)


def test_a_table_that_can_not_be_written_to_its_end_leaves_the_former_one(tmp_path):
    path = tmp_path / "p.csv"
    write_predictions(path, ["a", "b"], np.array([0, 1]), P, NAMES)
    former = path.read_text()
    with pytest.raises(ValueError, match="zip"):
        write_predictions(path, ["a", "b"], np.array([0]), P, NAMES)
    assert path.read_text() == former and read_predictions(path).images == ["a", "b"]
