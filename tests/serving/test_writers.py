# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import os

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from PIL import Image

from dual_skd.metrics.uncertainty import Conformal
from dual_skd.networks.build import build_network
from dual_skd.serving.prediction import PredictionRules
from dual_skd.serving.writers import ExplanationWriter, PredictionWriter, picture
from dual_skd.utils.files import DRAFT_SUFFIX

NAMES = ["normal", "nodule"]


@pytest.mark.parametrize(
    ("multi_label", "second", "predicted"),
    [(False, ["0.25", "0.75"], ["normal", "nodule"]), (True, ["0.625", "0.5"], ["normal|nodule", ""])],
)
def test_predictions_are_a_row_per_image_and_a_column_per_class(tmp_path, multi_label, second, predicted):
    path = tmp_path / "out" / "predictions.csv"
    engine = Engine(lambda engine, batch: [{"pred": row} for row in batch])
    PredictionWriter(path, ["a.png", "b.png"], PredictionRules(NAMES, multi_label)).attach(engine)
    for _ in range(2):  # a second evaluation starts anew
        engine.run([torch.tensor([[first, float(other)]]) for first, other in zip((0.75, 0.25), second, strict=True)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a.png", "b.png"] and [row["predicted"] for row in rows] == predicted
    assert list(rows[1])[:2] == ["image", "predicted"] and list(rows[1])[-1] == "problem"
    assert (rows[1]["p_normal"], rows[1]["p_nodule"], rows[1]["problem"]) == ("0.25", second[1], "")


def test_an_image_that_could_not_be_used_has_a_row_without_numbers_and_is_counted(tmp_path, caplog):
    engine = Engine(lambda engine, batch: [{"pred": torch.tensor([0.75, 0.25])} for _ in batch])
    PredictionWriter(tmp_path / "predictions.csv", ["a.png", "b.png"], PredictionRules(NAMES)).attach(engine)
    with caplog.at_level("INFO"):
        engine.run([[{"problem": ""}, {"problem": "b.png is cut off."}]])
    with (tmp_path / "predictions.csv").open() as file:
        good, bad = csv.DictReader(file)
    assert good["predicted"] == "normal" and good["problem"] == ""
    assert bad.pop("image") == "b.png" and bad.pop("problem") == "b.png is cut off."
    assert set(bad) == {"predicted", "p_normal", "p_nodule", "uncertainty"} and not any(bad.values())
    assert "1 images could not be used" in caplog.text


def test_fewer_predictions_than_images_leave_the_former_table(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("former")
    engine = Engine(lambda engine, batch: [{"pred": row} for row in batch])
    PredictionWriter(path, ["a.png", "b.png"], PredictionRules(NAMES)).attach(engine)
    with pytest.raises(ValueError, match="1 predictions for 2 images"):
        engine.run([torch.tensor([[0.75, 0.25]])])
    assert path.read_text() == "former"


def test_rows_are_on_disk_after_each_batch_and_none_is_kept(tmp_path):
    engine = Engine(lambda engine, batch: [{"pred": row} for row in batch])
    writer = PredictionWriter(tmp_path / "predictions.csv", ["a", "b", "c"], PredictionRules(NAMES))
    writer.attach(engine)
    lines = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda: lines.extend(len(draft.read_text().splitlines()) for draft in tmp_path.glob(f"*{DRAFT_SUFFIX}")),
    )
    engine.run([torch.full((1, 2), 0.5)] * 3)
    assert lines == [2, 3, 4] and os.listdir(tmp_path) == ["predictions.csv"]


def test_an_auxiliary_and_calibrated_sets_have_columns(tmp_path):
    item = {"pred": torch.tensor([0.75, 0.25]), "auxiliary_pred": torch.tensor([0.25, 0.75])}
    engine = Engine(lambda engine, batch: [item])
    rules = PredictionRules(NAMES, sets=Conformal("lac", 0.1, 50, 0.3), auxiliary=True)
    PredictionWriter(tmp_path / "p.csv", ["a"], rules).attach(engine)
    engine.run([[{}]])
    with (tmp_path / "p.csv").open() as file:
        (row,) = csv.DictReader(file)
    entropy = float(row["uncertainty"])
    assert entropy == pytest.approx(0.811278) and float(row["disagreement"]) == pytest.approx(1 - entropy)
    assert row["prediction_set"] == "normal"


def test_a_picture_of_each_usable_image_is_written_under_its_row(tmp_path):
    options = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}
    network = build_network("resnet18", num_classes=2, in_channels=1, **options).eval()
    engine = Engine(lambda engine, batch: [{"pred": torch.tensor([0.25, 0.75])} for _ in batch])
    ExplanationWriter(tmp_path / "maps", network).attach(engine)
    batch = [{"image": torch.randn(1, 64, 64), "problem": problem} for problem in ("", "cut off", "")]
    engine.run([batch])
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["000001.png", "000003.png"]
    with Image.open(tmp_path / "maps" / "000001.png") as found:
        assert found.size == (128, 64) and found.mode == "RGB"


def test_the_picture_shows_the_image_on_the_left_and_the_map_over_it_on_the_right():
    image, relevance = np.linspace(0, 1, 12).reshape(1, 3, 4), np.zeros((3, 4))
    relevance[1, 2] = 1
    found = np.asarray(picture(image, relevance))
    assert found.shape == (3, 8, 3)
    assert (found[..., 0] == found[..., 1])[:, :4].all() and found[0, 0, 0] == 0 and found[2, 3, 0] == 255
    assert [tuple(place) for place in np.argwhere(found[:, :4] != found[:, 4:])[:, :2]] == [(1, 2)] * 3
    volume = np.zeros((3, 4, 5))
    volume[1, 2, 3] = 1
    assert picture(volume, volume).size == (2 * 5, 4 + 3 + 3)  # slices (4, 5), (3, 5), (3, 4)


def test_arguments_of_before_version_0_2_give_the_same_table(tmp_path):
    pred, logits = torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([[2.0, 0.0], [0.0, 6.0]])
    images = ["a.png", "b.png"]

    def tables(name: str, auxiliary: torch.Tensor, **arguments) -> str:
        output = [{"pred": pred[n], "auxiliary_pred": auxiliary[n]} for n in range(2)]
        engine = Engine(lambda engine, batch: output)
        PredictionWriter(tmp_path / name, images, **arguments).attach(engine)
        engine.run([[{}, {}]])
        return (tmp_path / name).read_text()

    with pytest.warns(FutureWarning, match=r"copy inference\.json again"):
        former = tables(
            "former.csv", logits, class_names=NAMES, multi_label=False, auxiliary_temperature=2.0, sets=None
        )
    today = tables("today.csv", (logits / 2).softmax(1), rules=PredictionRules(NAMES, auxiliary=True))
    assert former == today and "disagreement" in today
