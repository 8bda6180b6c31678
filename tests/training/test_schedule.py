# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from dual_skd.errors import InputError
from dual_skd.training.schedule import Schedule


def course(schedule: Schedule, steps_per_epoch: int) -> list[float]:
    return [schedule.at(i, steps_per_epoch).skd_weight for i in range(schedule.epochs * steps_per_epoch)]


def test_the_stages_follow_each_other():
    schedule = Schedule(epochs=6, label_free_epochs=2, fine_tune_epochs=1)
    assert [schedule.stage(epoch) for epoch in range(8)] == ["label_free"] * 2 + ["skd"] * 3 + ["fine_tune"] * 3
    assert schedule.skd_epochs == 3


def test_the_weight_rises_stays_and_falls_to_0_with_the_last_iteration():
    schedule = Schedule(epochs=4, label_free_epochs=1, fine_tune_epochs=1, skd_weight=2.0, ramp_up=0.5)
    assert course(schedule, 4) == pytest.approx([0] * 4 + [0, 0.5, 1, 1.5] + [2] * 4 + [1.5, 1, 0.5, 0])


def test_without_ramp_the_full_weight_holds_from_the_start():
    assert course(Schedule(epochs=1, ramp_up=0.0), 3) == [1.0, 1.0, 1.0]


def test_a_ramp_that_is_no_whole_number_of_steps_is_hit_in_between():
    assert course(Schedule(epochs=1, ramp_up=0.3), 5) == pytest.approx([0, 1 / 1.5, 1, 1, 1])


def test_label_free_training_then_fine_tuning_uses_no_distillation():
    schedule = Schedule(epochs=4, label_free_epochs=2, fine_tune_epochs=2)
    assert course(schedule, 3) == [0.0] * 12
    assert schedule.stage(2) == "fine_tune"


def test_the_momentum_warms_up_per_optimiser_step():
    schedule = Schedule(epochs=10, momentum=0.5)
    assert [schedule.at(i, 100).momentum for i in (0, 1, 8, 9)] == [0.1, 2 / 11, 0.5, 0.5]
    assert [schedule.at(i, 100, accumulation_steps=2).momentum for i in range(4)] == [0.1, 0.1, 2 / 11, 2 / 11]
    assert Schedule(epochs=1, momentum=0.5, momentum_warmup=False).at(0, 10).momentum == 0.5


def test_iterations_beyond_the_last_epoch_belong_to_the_last_stage():
    assert Schedule(epochs=2, fine_tune_epochs=1).at(99, 5)[:2] == ("fine_tune", 0.0)
    assert Schedule(epochs=2).at(99, 5)[:2] == ("skd", 1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_free_epochs": 3, "fine_tune_epochs": 3}, "don't fit into 5 epochs"),
        ({"epochs": 0}, "epochs must be a whole number, 1 or more"),
        ({"fine_tune_epochs": -1}, "fine_tune_epochs"),
        ({"fine_tune_epochs": 0.5}, "fine_tune_epochs must be a whole number"),
        ({"fine_tune_epochs": "x"}, "found 'x'"),
        ({"momentum": 1.5}, "momentum"),
        ({"ramp_up": -0.1}, "ramp_up"),
        ({"skd_weight": -1.0}, "skd_weight"),
        ({"skd_weight": float("nan")}, "skd_weight"),
    ],
)
def test_impossible_schedules_are_told_in_one_sentence(options, words):
    with pytest.raises(InputError, match=words):
        Schedule(**{"epochs": 5, **options})
