# SPDX-License-Identifier: Apache-2.0
"""The trainer's arguments before version 0.2, which described the method: they make a task, until version 0.3."""

from __future__ import annotations

import warnings
from typing import Any

from dual_skd.errors import InputError
from dual_skd.training.label_free import LabelFreeTask
from dual_skd.training.schedule import Schedule
from dual_skd.training.task import DualModelTask

FORMER = """
    network loss_function auxiliary distillation update schedule auxiliary_optimizer label_free_heads
""".split()


def task_of(task: Any, arguments: dict[str, Any], *, epochs: int) -> Any:
    """Returns ``task``, or builds it from the former arguments, which it takes out of ``arguments``.

    Raises:
        InputError: there is neither, or both, or they don't fit together.
    """
    found = {name: arguments.pop(name) for name in FORMER if name in arguments}
    names = ", ".join(found)
    if task is not None and found:
        raise InputError(
            f"the trainer has a task, so {names} belong there; give them to DualModelTask, in a config under `task#`."
        )
    if task is not None:
        return task
    if not {"network", "loss_function"} <= found.keys():
        raise InputError("the trainer needs a task; build a DualModelTask of the student and the loss on the labels.")
    warnings.warn(
        f"The trainer takes a task=DualModelTask(...) in place of {names}; these arguments go with version 0.3.",
        FutureWarning,
        stacklevel=3,
    )
    student, criterion, heads = (found.pop(name, None) for name in ("network", "loss_function", "label_free_heads"))
    schedule = found.pop("schedule", None) or Schedule(epochs)
    former = DualModelTask(student, criterion, schedule=schedule, **found)
    return LabelFreeTask(former, heads) if heads is not None and schedule.label_free_epochs else former
