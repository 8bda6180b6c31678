# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from tiny_benchmark import changed, grid_line

from dual_skd.errors import InputError
from scripts.benchmark.plan import PLAN, Cell, chosen_rate, grid_means, planned_cells, read_plan, settings_of
from scripts.benchmark.run import grid_cells


def test_cells_are_planned_one_seed_of_everything_after_the_other_and_what_is_needed_first(plan):
    found = [cell.id for cell in planned_cells(read_plan(plan))]
    tier = ["phantoms_1.0_single_0", "phantoms_1.0_dual_0", "phantoms_1.0_large_0", "phantoms_1.0_distill_0"]
    assert found[:4] == tier
    assert found[4:] == [f"phantoms_0.5_{row}_{seed}" for seed in (0, 1) for row in ("single", "dual")]


def test_a_teacher_can_be_of_a_data_set_that_prepares_the_same_images_in_another_way(plan):
    def elsewhere(content):
        content["data"]["larger"] = content["data"]["phantoms"] | {"epochs": {"0.5": 1}}
        content["data"]["phantoms"]["teacher"] = "larger"
        content["tiers"] = [{"on": [["phantoms", 0.5]], "rows": ["distill"], "seeds": [3]}]

    found = planned_cells(read_plan(changed(plan, "elsewhere.json", elsewhere)))
    assert [cell.id for cell in found] == ["larger_0.5_large_3", "phantoms_0.5_distill_3"]

    def without_epochs(content):
        elsewhere(content)
        content["data"]["larger"]["epochs"] = {"1.0": 1}

    with pytest.raises(InputError, match="larger has no epochs for the fraction 0.5"):
        read_plan(changed(plan, "without_epochs.json", without_epochs))
    with pytest.raises(InputError, match="names the data set 'none'"):
        read_plan(changed(plan, "unknown.json", lambda content: content["data"]["phantoms"].update(teacher="none")))


def test_the_plan_of_the_repository_is_complete_and_starts_with_the_decisive_cells():
    plan = read_plan(PLAN)
    cells = planned_cells(plan)
    assert len({cell.id for cell in cells}) == len(cells)
    assert {cell.data for cell in cells[:18]} >= {"chest_xray", "lung_ct", "brain_mri"}
    assert {cell.row for cell in cells} == set(plan["rows"])


def test_a_plan_that_names_what_it_does_not_define_is_refused(plan, start, tmp_path):
    tiers = [{"on": [["phantoms", 1.0]], "rows": ["dua"], "seeds": [0]}]
    path = changed(plan, "wrong.json", lambda content: content.update(tiers=tiers))
    with pytest.raises(SystemExit, match="names the row 'dua', which it doesn't define; known: single, dual"):
        start(tmp_path, plan=path)


def test_one_rate_is_chosen_for_all_data_sets_of_the_same_networks_by_all_their_images(plan):
    content = read_plan(plan)
    content["data"] |= {"others": {"path": "demo"}, "volumes": {"path": "demo", "configs": ["volume.json"]}}
    content["rows"]["noisy"] = {"method": "single", "noise": 0.2, "rate_of": "single"}
    tuned = [
        grid_line("phantoms", "single", 0.001, 1.0), grid_line("phantoms", "single", 0.01, 0.5),
        grid_line("others", "single", 0.001, 1.0, images=4), grid_line("others", "single", 0.01, 1.6, images=4),
        grid_line("phantoms", "single", 0.1, 0.0),  # the others haven't been tried with it
        grid_line("volumes", "single", 0.001, 0.0), grid_line("forgotten", "single", 0.001, 0.0),
    ]  # fmt: skip

    def rate(data: str, row: str) -> float | None:
        return chosen_rate(content, Cell(data, 1.0, row, 3), tuned)

    assert grid_means(tuned[:4], "nll") == pytest.approx({0.001: 1.0, 0.01: (9 * 0.5 + 4 * 1.6) / 13})
    assert rate("phantoms", "single") == rate("others", "single") == rate("others", "noisy") == 0.01
    assert rate("volumes", "single") == 0.001
    assert rate("phantoms", "dual") is None
    settings = settings_of(content, Cell("phantoms", 1.0, "noisy", 3), tuned)
    assert settings["learning_rate"] == 0.01 and settings["noise"] == 0.2 and "rate_of" not in settings
    assert grid_means([tuned[0] | {"nll": ""}, *tuned[1:2]], "nll") == {0.01: 0.5}
    without = {key: value for key, value in content.items() if key != "tune"}
    with pytest.raises(InputError, match="no learning rates to compare"):
        grid_cells(without, [], [])
    assert chosen_rate(without, Cell("phantoms", 1.0, "single", 3), tuned) is None


def test_a_rate_is_taken_from_a_row_that_the_plan_has(plan):
    path = changed(plan, "rate_of.json", lambda content: content["rows"]["dual"].update(rate_of="nothing"))
    with pytest.raises(InputError, match="names the row 'nothing'"):
        read_plan(path)
