# SPDX-License-Identifier: Apache-2.0
"""Data lists that came with a stranger's data and name files outside it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dual_skd.cli.dispatch import main
from dual_skd.data import load_evaluation_records, load_records, save_split
from dual_skd.data.records.asked_images import find_images
from dual_skd.errors import InputError

WHOLE = {"val_fraction": 0, "test_fraction": 0, "keep_twins": True}


@pytest.fixture
def here(tmp_path) -> Path:
    """A data set of four images, and a private image beside it."""
    for number, name in enumerate(["data/0.png", "data/1.png", "data/2.png", "data/3.png", "private/me.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)).save(tmp_path / name)
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "private" / "me.png")
    (tmp_path / "data" / "up").symlink_to(tmp_path / "private")
    (tmp_path / "data" / "again.png").symlink_to("3.png")
    return tmp_path


def listed(folder: Path, *names: str, form: str = "datalist.csv") -> Path:
    names = ("0.png", "1.png", "2.png", *names)
    if form.endswith("json"):
        entries = [{"image": name, "label": "ab"[place % 2]} for place, name in enumerate(names)]
        (folder / form).write_text(json.dumps({"training": entries}))
    else:
        lines = ["image,label", *(f"{name},{'ab'[place % 2]}" for place, name in enumerate(names))]
        (folder / form).write_text("\n".join(lines))
    return folder / form


@pytest.mark.parametrize(
    "name", ["../private/me.png", "link.png", "up/me.png", "x/../../private/me.png", "{}/private/me.png"]
)
@pytest.mark.parametrize("form", ["datalist.csv", "datalist.json"])
def test_what_lies_outside_is_refused_with_its_row_and_taken_on_request(here, name, form):
    (here / "data" / "x").mkdir()
    path = listed(here / "data", name.format(here), form=form)
    for location in (path, path.parent):
        with pytest.raises(
            InputError, match=f"{form}, entry 4: the image .*me.png|link.png lies outside .*--allow-outside"
        ):
            load_records(location, **WHOLE)
        with pytest.raises(InputError, match="entry 4"):
            find_images(location)
        found = {
            os.path.realpath(record["image"]) for record in load_records(location, allow_outside=True, **WHOLE).train
        }
        assert str(here / "private" / "me.png") in found
        assert len(find_images(location, allow_outside=True)) == 4


def test_links_and_absolute_paths_that_stay_inside_are_taken(here):
    listed(here / "data", f"{here}/data/3.png", "again.png", "../data/3.png")
    # 3.png is one image under two names, and the link to it one of its own
    assert len(load_records(here / "data", **WHOLE).train) == 5


def test_a_data_set_that_is_itself_a_link_is_taken(here):
    listed(here / "data", "3.png")
    (here / "linked").symlink_to(here / "data")
    assert len(load_records(here / "linked", **WHOLE).train) == 4


def test_a_list_of_absolute_paths_alone_may_name_any_place(here):
    lines = [f"{here}/data/{number}.png,{'ab'[number % 2]}" for number in range(4)]
    (here / "private" / "mine.csv").write_text("\n".join(["image,label", *lines]))
    data = load_records(here / "private" / "mine.csv", **{**WHOLE, "test_fraction": 0.5})
    assert len(data.train) + len(data.test) == 4
    # and so a run finds its own division, wherever its output lies
    (here / "output").mkdir()
    save_split(data, here / "output" / "datalist.json")
    again = load_evaluation_records(here / "output" / "datalist.json", class_names=("a", "b"))
    assert [record["image"] for record in again.test] == [record["image"] for record in data.test]


def test_an_external_data_set_is_held_to_the_same(here):
    data = load_records(listed(here / "data", "3.png"), **WHOLE)
    save_split(data, here / "datalist.json")
    (here / "other").mkdir()
    other = here / "other" / "datalist.csv"
    (here / "other" / "new.png").write_bytes((here / "private" / "me.png").read_bytes())
    other.write_text("image,label\nnew.png,a\n../private/me.png,b\n")
    arguments = {"class_names": ("a", "b"), "keep_twins": True}
    with pytest.raises(InputError, match="entry 2"):
        load_evaluation_records(here / "datalist.json", other, **arguments)
    allowed = load_evaluation_records(here / "datalist.json", other, allow_outside=True, **arguments)
    assert len(allowed.test) == 2


def test_check_names_every_image_that_lies_outside(here, capsys):
    listed(here / "data", "link.png", "../private/me.png", "absent.png")
    assert main(["check", str(here / "data"), "--no-twins", "--quiet", "--json", str(here / "found.json")]) == 1
    found = json.loads((here / "found.json").read_text())["offenders"]
    assert sorted((Path(one["image"]).name, one["kind"]) for one in found if one["kind"] in ("outside", "missing")) == [
        ("absent.png", "missing"), ("link.png", "outside"), ("me.png", "outside")
    ]  # fmt: skip
    main(["check", str(here / "data"), "--no-twins", "--quiet", "--allow-outside"])
    said = capsys.readouterr().out.split("1 image is missing")[-1]
    assert "outside" not in said.replace("--allow-outside", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_device_is_never_opened(here):
    os.mkfifo(here / "data" / "pipe.png")
    (here / "data" / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(InputError, match="neither a file nor a folder"):
            load_records(listed(here / "data", name), allow_outside=True, **WHOLE)
    for place in range(4):
        folder = here / "classes" / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (here / "data" / f"{place}.png").rename(folder / f"{place}.png")
    os.mkfifo(here / "classes" / "a" / "pipe.png")
    (here / "classes" / "a" / "zero.dcm").symlink_to("/dev/zero")
    data = load_records(here / "classes", **WHOLE)
    assert len(data.train) == 4 and len(data.ignored) == 2
    assert len(find_images(here / "classes")) == 4
