# SPDX-License-Identifier: Apache-2.0
"""The commands that make a run again."""

from __future__ import annotations

import re
import shlex
from typing import Any

from dual_skd.evaluation.analysis import Analysis
from dual_skd.options import Evaluation, Reporting, command

CAPITAL_WORDS = {
    "DATA": "the data of the training",
    "OUT": "the folder of the run",
    "DATASET_DIR": "the data measured",
}


def commands(analysis: Analysis) -> str:
    """The commands that make such a run: DATA stands for the data, OUT for its folder, DATASET_DIR for other data.

    Training gets the options that its user chose; places of the computer are capital words.
    """
    name, section = analysis.split, analysis.data.section
    measured: dict[str, Any] = {} if section else {"dataset_dir": "other data"}
    usual_name = {"validation": "val"}.get(section, "test")
    measured |= {"split": usual_name} if usual_name != "test" else {}
    measured |= {"report_as": name} if name != usual_name else {}
    unit = analysis.unit
    of_patients = {"per": unit.name, "combine": unit.combine} if unit.combine == "max" else {"per": unit.name}
    measured |= of_patients if unit.name == "patient" else {}
    asked, usual = analysis.recalibration, Reporting()
    measured |= {"recalibrate": asked.form} if asked.form != usual.recalibrate else {}
    measured |= {"recalibrate_share": asked.share} if asked.share != usual.recalibrate_share else {}
    reported = f" --split {shlex.quote(name)}" if name != "test" else ""
    reported += command("", of_patients, Evaluation) if unit.name == "patient" else ""
    evaluation = command("dual-skd evaluate OUT", measured, Evaluation)
    return f"{analysis.run.command}\n{evaluation}\ndual-skd report OUT{reported}"


def capital_words(written: str) -> tuple[dict[str, str], bool]:
    """What the capital words of commands stand for, and whether there are others."""
    there = {word for word in shlex.split(written) if re.fullmatch("[A-Z_]+", word)}
    known = {word: meaning for word, meaning in CAPITAL_WORDS.items() if word in there}
    return known, len(there) > len(known)
