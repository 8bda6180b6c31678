# SPDX-License-Identifier: Apache-2.0
"""Configs and programs written before version 0.2 still find what they name."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import dual_skd
from dual_skd.utils.former_names import MODULES, present_name, renamed


@pytest.mark.parametrize("former", [*sorted(MODULES), "prediction.predictor", "deploy.formats", "commands.check"])
def test_a_former_name_gives_the_module_of_today(former):
    sys.modules.pop(f"dual_skd.{former}", None)
    present = present_name(f"dual_skd.{former}")
    with pytest.warns(FutureWarning, match=f"dual_skd.{former} is now {present};"):
        found = importlib.import_module(f"dual_skd.{former}")
    assert found is importlib.import_module(present) and present.startswith("dual_skd.")


def test_a_class_is_the_same_object_under_both_names():
    sys.modules.pop("dual_skd.losses", None)
    with pytest.warns(FutureWarning, match="former name"):
        losses = importlib.import_module("dual_skd.losses")
    assert losses.SelfDistillationLoss is dual_skd.SelfDistillationLoss


@pytest.mark.parametrize("expression", [
    "dual_skd.distributed.own_share([1], None)", "dual_skd.distributed.meet", "dual_skd.distributed.by_first",
    "dual_skd.distributed.own_places(1)", "dual_skd.distributed.DrawnPerProcess", "dual_skd.bad_numbers.curves",
    "dual_skd.outputs.bundle_root()", "dual_skd.evaluation.goodness",
    "dual_skd.runs.goodness",
    "dual_skd.networks.classifier_of", "dual_skd.options.refuse_unknown()", "dual_skd.evaluation.MetricsRecorder",
    "dual_skd.evaluation.bootstrap_intervals", "dual_skd.pretrained.require_files", "dual_skd.run_progress",
])  # fmt: skip
def test_expressions_of_former_configs_find_their_functions(expression):
    code = f"import warnings; warnings.simplefilter('ignore'); import dual_skd; {expression}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_stays_unknown():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("dual_skd.trainers")
    with pytest.raises(AttributeError, match="no attribute 'trainers'"):
        _ = dual_skd.trainers
    with pytest.raises(AttributeError, match="no attribute 'goodnes'"):
        _ = dual_skd.evaluation.goodnes


def test_a_function_under_its_former_name():
    get = renamed("dual_skd.utils.wording", numbered="counted")
    with pytest.warns(FutureWarning, match=r"dual_skd.utils.wording.numbered is now dual_skd.utils.wording.counted;"):
        assert get("numbered")(2, "image") == "2 images"
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        get("other")
    moved = renamed("dual_skd.utils.wording", known="dual_skd.utils.spelling.known_group")
    with pytest.warns(FutureWarning, match=r"dual_skd.utils.wording.known is now dual_skd.utils.spelling.known_group;"):
        assert moved("known")("site") == "site"
