# SPDX-License-Identifier: Apache-2.0
"""The commands ``dual-skd train`` and ``evaluate`` as Python functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dual_skd.runs.places import require_run
from dual_skd.runs.workflow import EVALUATE, TRAIN
from dual_skd.utils.log import shown_in_scripts

if TYPE_CHECKING:
    from dual_skd.api.results import EvaluationResult, TrainingResult


def train(
    dataset_dir: str | Path | None = None,
    *,
    preset: str | Sequence[str] | None = None,
    config: str | Path | Sequence[str | Path] | None = None,
    **options: Any,
) -> TrainingResult:
    """Trains a light classifier, as ``dual-skd train`` does.

    A run that was stopped goes on if it is given the same ``output_dir`` again. A script shows the command's log on
    stderr, unless it has set up a log of its own; a notebook shows nothing.

    Args:
        dataset_dir: your data, in any form of docs/user_guide.md; "demo" and "demo3d" generate images.
        preset: "volume", "vit", "convnext", "finetune", or several names of files in the bundle's ``configs``.
        config: a JSON or YAML file of options, or several; options given here win.
        options: those of docs/options.md, such as ``output_dir="output"``, ``epochs=24``, ``image_size=[48, 48, 24]``.

    Returns:
        the result, read from the run's folder.

    Raises:
        InputError: an option or the data can't be used.
        SystemExit: 130 or 143 after SIGINT or SIGTERM in training, with the state saved.
    """
    gathered = TRAIN.gather(_with(options, dataset_dir=dataset_dir), preset, config)
    with shown_in_scripts():
        parser = TRAIN.run(gathered.files, gathered.values)
    from dual_skd.api.results import TrainingResult

    return TrainingResult(Path(parser.get_parsed_content("folder")))


def evaluate(
    output_dir: str | Path | None = None,
    *,
    preset: str | Sequence[str] | None = None,
    config: str | Path | Sequence[str | Path] | None = None,
    **options: Any,
) -> EvaluationResult:
    """Measures a run's model, as ``dual-skd evaluate`` does.

    Args:
        output_dir: of the run, "output" by default.
        preset: "corruption".
        config: a JSON or YAML file of options, or several; options given here win.
        options: those of docs/options.md, such as ``dataset_dir="OTHER_HOSPITAL"``, ``report=False``.

    Returns:
        the numbers, read from the run's folder.

    Raises:
        InputError: an option, the model or the data can't be used.
    """
    gathered = EVALUATE.gather(_with(options, output_dir=output_dir), preset, config)
    require_run(gathered.options.output_dir)
    with shown_in_scripts():
        parser = EVALUATE.run(gathered.files, gathered.values)
    from dual_skd.api.results import EvaluationResult

    return EvaluationResult(Path(parser.get_parsed_content("folder")), parser.get_parsed_content("evaluation_name"))


def _with(options: dict[str, Any], **place: str | Path | None) -> dict[str, Any]:
    return options | {name: value for name, value in place.items() if value is not None}
