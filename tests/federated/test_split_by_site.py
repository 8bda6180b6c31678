# SPDX-License-Identifier: Apache-2.0
"""A table of images divided by hospital."""

from __future__ import annotations

import csv

import pytest
from tiny_run import picture

from dual_skd.data import load_records
from dual_skd.errors import InputError
from scripts.federated.split_by_site import main, split_by_site

LABELS = ["ill", "well"]


@pytest.fixture
def table(tmp_path):
    """Twelve images of six patients, of three hospitals in two cities."""
    folder = tmp_path / "data"
    rows = [["image", "label", "patient", "Site"]]
    for number in range(12):
        picture(folder / f"{number}.png", number)
        rows.append([f"{number}.png", LABELS[number // 2 % 2], f"P{number // 2}", "north" if number < 4 else "south"])
    with (folder / "datalist.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_every_image_goes_to_its_site(table, tmp_path, capsys):
    assert main([str(table), str(tmp_path / "sites")]) == 0
    assert "north: 4 images (ill 2, well 2): " in capsys.readouterr().out
    data = load_records(tmp_path / "sites" / "south", keep_twins=True, val_fraction=0.3)
    found = {record.image: record.label for records in data.splits.values() for record in records}
    assert found == {str(table / f"{number}.png"): number // 2 % 2 for number in range(4, 12)}
    assert data.class_names == ("ill", "well")


def test_small_sites_are_left_out(table, tmp_path):
    assert list(split_by_site(table, tmp_path / "sites", least=5)) == ["south"]
    with pytest.raises(InputError, match="No site of .* has 9 images; lower --least"):
        split_by_site(table, tmp_path / "sites", least=9)


def test_patients_are_dealt_out_whole(table, tmp_path):
    sites = split_by_site(table, tmp_path / "sites", deal=3)
    assert list(sites) == ["site-1", "site-2", "site-3"]
    of_site = {site: list(csv.DictReader(path.open())) for site, path in sites.items()}
    patients = {site: {row["patient"] for row in rows} for site, rows in of_site.items()}
    assert sorted(name for names in patients.values() for name in names) == [f"P{number}" for number in range(6)]
    assert {site: len({row["label"] for row in rows}) for site, rows in of_site.items()} == dict.fromkeys(sites, 2)


def test_errors_say_what_to_do(table, tmp_path, capsys):
    assert main([str(table), str(tmp_path / "sites"), "--column", "hospital"]) == 1
    assert "hospital" in capsys.readouterr().err
    text = (table / "datalist.csv").read_text()
    (table / "datalist.csv").write_text(text.replace("south", "../south"))
    with pytest.raises(InputError, match=r"entry 4: the site is '../south', which can't be the name of a folder"):
        split_by_site(table, tmp_path / "sites")
