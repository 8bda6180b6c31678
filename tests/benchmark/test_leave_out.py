# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dual_skd.data import load_records, write_demo
from dual_skd.errors import InputError
from scripts.benchmark.cells import Benchmark
from scripts.benchmark.leave_out import elsewhere, leave_out, with_variants
from scripts.benchmark.plan import planned_cells, read_plan
from scripts.benchmark.results import Results
from scripts.benchmark.store import COLUMNS, Predictions, add_predictions, add_rows, predictions_path
from scripts.benchmark.tables import corrected_table, table_of


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Volumes of three sites, with a patient and a split that has to go."""
    folder = write_demo(tmp_path_factory.mktemp("sites") / "demo", spatial_dims=3, counts={"train": 12}).resolve()
    with (folder / "datalist.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "datalist.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "label", "patient", "site", "split"])
        writer.writeheader()
        for number, row in enumerate(rows):
            place = {"patient": f"p{number}", "site": "ABC"[number // 3 % 3], "split": "train"}
            writer.writerow({"image": row["image"], "label": row["label"]} | place)
    return folder


def plan(**leave_out) -> dict:
    return {
        "data": {
            "all": {"path": "demo", "epochs": {"1.0": 1}},
            "sites": {"path": "demo", "epochs": {"1.0": 1}, "leave_out": leave_out or {"site": ["A", "B"]}},
        },
        "rows": {"single": {"method": "single"}},
        "tiers": [{"on": [["sites", 1.0], ["all", 1.0]], "rows": ["single"], "seeds": [0]}],
        "claims": {"scarce": [["sites", 1.0]], "full": [["all", 1.0]]},
    }


def test_an_entry_becomes_a_data_set_per_site_wherever_it_is_named():
    wanted = plan()
    wanted["claims"]["variants"] = [{"method": "dual", "control": "single", "on": [["sites", 1.0]]}]
    found = with_variants(wanted)
    assert list(found["data"]) == ["all", "sites_A", "sites_B"]
    assert found["data"]["sites_B"] == {"path": "demo", "epochs": {"1.0": 1}, "leave_out": {"site": "B"}}
    assert found["tiers"][0]["on"] == [["sites_A", 1.0], ["sites_B", 1.0], ["all", 1.0]]
    both = [["sites_A", 1.0], ["sites_B", 1.0]]
    variants = [{"method": "dual", "control": "single", "on": both}]
    assert found["claims"] == {"scarce": both, "full": [["all", 1.0]], "variants": variants}


def test_the_test_images_are_those_of_the_site_and_the_training_images_all_others(data, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(plan()))
    read = read_plan(tmp_path / "plan.json")
    benchmark = Benchmark(read, [data.parent], tmp_path / "results", tmp_path / "work", None)
    cells = planned_cells(read)
    assert [cell.id for cell in cells] == ["sites_A_1.0_single_0", "sites_B_1.0_single_0", "all_1.0_single_0"]
    with (data / "datalist.csv").open(newline="") as file:
        site = {str(data / row["image"]): row["site"] for row in csv.DictReader(file)}
    for cell, held_out in zip(cells[:2], "AB", strict=True):
        table = Path(benchmark.places(cell)["dataset_dir"])
        records = load_records(table, spatial_dims=3, val_fraction=0.25, twin_search="never")
        assert {site[record["image"]] for record in records.test} == {held_out}
        assert {record["site"] for record in records.train} <= set("ABC") - {held_out}
        assert len(records.test) == list(site.values()).count(held_out)
        assert len(records.train) + len(records.val) + len(records.test) == len(site)
        assert {record["patient"] for record in records.test}.isdisjoint(r["patient"] for r in records.train)
        before = table.stat().st_mtime_ns
        assert benchmark.places(cell) == {"dataset_dir": str(table)}
        assert table.stat().st_mtime_ns == before  # written once
    assert benchmark.places(cells[2]) == {"dataset_dir": str(data)}


def test_a_number_stands_for_so_many_folds_that_hold_each_value_once(data, tmp_path):
    content = plan(patient=3)
    content["data"]["sites"]["overrides"] = {"label_column": "site"}
    (tmp_path / "plan.json").write_text(json.dumps(content))
    read = read_plan(tmp_path / "plan.json")
    assert list(read["data"]) == ["all", "sites_1", "sites_2", "sites_3"]
    benchmark = Benchmark(read, [data.parent], tmp_path / "results", tmp_path / "work", None)
    held_out = []
    for cell in planned_cells(read)[:3]:
        with Path(benchmark.places(cell)["dataset_dir"]).open(newline="") as file:
            rows = list(csv.DictReader(file))
        test = {row["patient"] for row in rows if row["split"] == "test"}
        assert test.isdisjoint(row["patient"] for row in rows if row["split"] == "train")
        counts = Counter(row["site"] for row in rows if row["split"] == "test")
        whole = Counter(row["site"] for row in rows)
        assert all(abs(counts[site] - whole[site] / 3) <= 1 for site in "ABC")  # each its share of each label
        held_out += sorted(test)
    assert len(held_out) == len(set(held_out)) == len(rows)


@pytest.fixture
def measured(tmp_path):
    """Results of two rows at site A, eight images of three patients, and of one row at B, four of unknown patients."""
    random = np.random.default_rng(0)
    labels = {"A": np.array([0, 1, 2, 0, 1, 2, 0, 1]), "B": np.array([2, 0, 1, 2])}
    patients = {"A": np.array([0, 0, 0, 1, 1, 1, 2, 2]), "B": np.full(4, -1)}
    for site, row, seed in (("A", "single", 0), ("A", "dual", 0), ("B", "single", 0), ("A", "single", 1)):
        p = random.dirichlet(np.ones(3), len(labels[site]))
        found = Predictions(
            [f"{site}{n}" for n in range(len(p))], labels[site], patients[site], {"student": p}, np.array([3, 4, 5])
        )
        path = predictions_path(tmp_path, f"sites_{site}", 1.0)
        add_predictions(path, row, seed, found)
        line = dict.fromkeys(COLUMNS, "") | {"network": "student", "macs": 1, "parameters": 10**6}
        line |= {"learning_rate": 0.1, "val_accuracy": 0.7, "data": f"sites_{site}", "fraction": 1.0}
        add_rows(tmp_path, [line | {"row": row, "seed": seed}])
    content = plan() | {"control": "single"}
    content["rows"]["dual"] = {"method": "dual"}
    return Results(tmp_path, with_variants(content))


def test_the_images_of_all_sites_are_counted_together_once_every_site_has_been_held_out(measured):
    assert measured.of("sites", 1.0, "dual") == {}
    (line,) = measured.of("sites", 1.0, "single").values()  # site B has no second seed
    parts = [measured.predictions(f"sites_{site}", 1.0, "single", 0) for site in "AB"]
    assert np.array_equal(measured.predictions("sites", 1.0, "single", 0), np.concatenate(parts))
    labels = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    right = np.concatenate(parts).argmax(axis=1) == labels
    recalls = [right[np.equal(labels, k)].mean() for k in range(3)]
    assert float(line["balanced_accuracy"]) == pytest.approx(np.mean(recalls))
    assert float(line["accuracy"]) == pytest.approx(right.mean())
    assert line["val_accuracy"] == "" and line["parameters"] == "1000000"
    assert measured.patients("sites", 1.0) == [f"sites_A {n}" for n in (0, 0, 0, 1, 1, 1, 2, 2)] + [""] * 4


def test_differences_over_all_sites_are_those_of_the_images_together(measured):
    line = dict(measured.of("sites_A", 1.0, "dual")[0], data="sites_B")
    stored = measured.predictions("sites_B", 1.0, "single", 0)[::-1]
    path = predictions_path(measured.folder, "sites_B", 1.0)
    found = Predictions(
        [f"B{n}" for n in range(4)], measured.labels("sites_B", 1.0), np.full(4, -1), {"student": stored}, np.ones(3)
    )
    add_predictions(path, "dual", 0, found)
    add_rows(measured.folder, [line])
    again = Results(measured.folder, measured.plan)
    difference = again.differences("sites", 1.0, "dual", "single")["balanced_accuracy"]
    values = [float(again.of("sites", 1.0, row)[0]["balanced_accuracy"]) for row in ("dual", "single")]
    assert difference.value == pytest.approx(values[0] - values[1])


def test_the_report_shows_all_sites_together_before_each(measured):
    tables = Results(measured.folder, measured.plan).tables()
    assert [data for data, _, _ in tables] == ["sites", "sites_A", "sites_B", "all"]
    table = table_of(measured, "sites", 1.0, ["single"])
    assert "| single | student | 1 |" in table[-2]
    _, _, _, *equal = corrected_table(measured, "equal classes")
    # marked: the settings of the lines are none of the plan
    assert [line.split(" | ")[:2] for line in equal] == [["| sites, 100% †", "single"]]


def test_what_cannot_be_held_out_is_refused(data, tmp_path):
    hold = leave_out
    with pytest.raises(InputError, match="has the site A, B, C; 'D' can't be held out"):
        hold(data, "site", "D", tmp_path / "list.csv")
    with pytest.raises(InputError, match="has no column hospital; it has image, label, patient, site, split"):
        hold(data, "hospital", "A", tmp_path / "list.csv")
    with pytest.raises(InputError, match="leave_out needs a data set with a table"):
        hold(tmp_path, "site", "A", tmp_path / "list.csv")
    with pytest.raises(InputError, match=r"has the patient p0, .*; \(40, 40\) can't be held out"):
        hold(data, "patient", (40, 40), tmp_path / "list.csv")
    for wanted in ("A", 1, 2.5):
        with pytest.raises(InputError, match="'sites' has leave_out .*; expected one column with a list of values, as"):
            with_variants(plan(site=wanted))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory) -> Path:
    """Two data sets: one with splits, one that is a folder per class."""
    folder = tmp_path_factory.mktemp("hospitals")
    write_demo(folder / "home", counts={"train": 8, "val": 4, "test": 4}, seed=1)
    write_demo(folder / "away", counts={"train": 10}, seed=2)
    return folder


def test_a_model_is_tested_on_half_of_the_images_of_another_hospital(hospitals, tmp_path):
    split, table = elsewhere(hospitals / "home", hospitals / "away", tmp_path)
    found, home = load_records(split), load_records(hospitals / "home")
    away = {record.image: record.label for record in load_records(hospitals / "away", val_fraction=0.0).train}
    assert (found.train, found.val) == (home.train, home.val)
    tested = {record.image: record.label for record in found.test}
    with table.open(newline="") as file:
        further = {row["image"] for row in csv.DictReader(file)}
    assert tested.items() <= away.items() and further == away.keys() - tested.keys()
    assert len(tested) - len(further) in (0, 1)


def test_only_a_row_that_adapts_gets_the_further_images(hospitals, tmp_path):
    wanted = {"path": "home", "elsewhere": "away", "epochs": {"1.0": 1}}
    rows = {"single": {"method": "single"}, "adapted": {"method": "single", "unlabelled": "elsewhere"}}
    on = {"on": [["there", 1.0]], "rows": list(rows), "seeds": [0]}
    both = {"data": {"there": wanted}, "rows": rows, "tiers": [on]}
    benchmark = Benchmark(both, [hospitals], tmp_path / "results", tmp_path / "work", None)
    plain, adapted = map(benchmark.places, planned_cells(both))
    assert adapted == plain | {"unlabelled": str(tmp_path / "work" / "elsewhere" / "there" / "unlabelled.csv")}


def test_another_hospital_has_the_same_classes(hospitals, tmp_path):
    rows = (hospitals / "away" / "datalist.csv").read_text().replace("nodule", "mass")
    shutil.copytree(hospitals / "away" / "images", tmp_path / "away" / "images")
    (tmp_path / "away" / "datalist.csv").write_text(rows)
    with pytest.raises(InputError, match="has the classes .*; elsewhere in the plan needs the same"):
        elsewhere(hospitals / "home", tmp_path / "away", tmp_path)
