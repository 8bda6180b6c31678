# SPDX-License-Identifier: Apache-2.0
"""The method and its controls by one word each.

Every row fixes which weights of the large network the two light ones start from, and how the auxiliary moves. A rule
is an element rule of :mod:`dual_skd.selection` (``uniform``, ``complement``, ...), or ``scratch``: random
initialisation, chosen on purpose. The rows are the ones that a claim about the method has to be compared with.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dual_skd.data.reading.locators import expanded
from dual_skd.errors import InputError, choose
from dual_skd.momentum import unwrap
from dual_skd.options import completed
from dual_skd.outputs import plain_values, read_info
from dual_skd.pretrained import load_state_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """One row of an ablation.

    Args:
        student: how the student is initialised.
        auxiliary: how the auxiliary is initialised; None without auxiliary.
        update: how the auxiliary moves: ``ema``, ``mutual``, ``frozen`` or ``none``.
        purpose: what the row shows, in a few words.
        layers: the auxiliary's layer rule, for networks with fewer blocks than the large one; the student's is
            ``first``.
        temperature: of the distillation.
        skd_weight: of the distillation against the labels' loss, once it has ramped up.
        fine_tunes: whether the distillation fades out over the last epochs, so that labels alone finish the training.
    """

    student: str
    auxiliary: str | None
    update: str
    purpose: str
    layers: str = "last"
    temperature: float = 2.0
    skd_weight: float = 1.0
    fine_tunes: bool = True


METHODS: dict[str, Method] = {
    "coupled": Method(
        "uniform",
        "complement",
        "mutual",
        "two selections that teach each other strongly: the default",
        temperature=4.0,
        skd_weight=3.0,
        fine_tunes=False,
    ),
    "dual": Method(
        "uniform", "complement", "ema", "two selections, the auxiliary follows by EMA: the description, literally"
    ),
    "mutual": Method("uniform", "complement", "mutual", "two selections, both trained, each learns from the other"),
    "frozen": Method("uniform", "complement", "frozen", "the auxiliary keeps its selected weights"),
    "same_rule": Method(
        "uniform", "uniform", "ema", "plain mean teacher: does the second selection add anything?", "first"
    ),
    "random_auxiliary": Method("uniform", "scratch", "ema", "the auxiliary starts from random weights"),
    "distill": Method("uniform", "teacher", "frozen", "the fine-tuned large network teaches (set teacher_checkpoint)"),
    "single": Method("uniform", None, "none", "weight selection alone, plain fine-tuning"),
    "scratch": Method("scratch", None, "none", "random initialisation, plain training"),
}


def method(name: str) -> Method:
    """Returns the row called ``name``.

    Raises:
        InputError: there is no such row; the message lists them.
    """
    return choose(METHODS, name, "method")


def chosen_settings(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Names of a run's settings that its user chose: those with another value than train.json gives them.

    Args:
        settings: of a run, as its run.json has them.
        defaults: the content of train.json. What it takes from the row named by ``method`` is a default of that row;
            other expressions of it (of the data, of the machine) count as no choice.
    """
    row = METHODS.get(settings.get("method", ""))
    found = []
    for name, value in settings.items():
        default = defaults.get(name, value)
        of_row = re.fullmatch(r"\$dual_skd\.methods\.method\(@method\)\.(\w+)", str(default))
        if of_row and row is not None:
            default = getattr(row, of_row[1])
        elif isinstance(default, str) and default.startswith(("$", "@")):
            continue
        if value != default:
            found.append(name)
    return found


def load_teacher(
    network: nn.Module,
    checkpoint: str | None,
    *,
    class_names: Sequence[str] | None = None,
    multi_label: bool | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Gives the teacher of ``distill`` the weights of a fine-tuned large network, classifier included.

    Args:
        network: the teacher, built by the architecture of the checkpoint.
        checkpoint: ``models/model.pt`` of a run that trained the large network on the same classes.
        class_names: of the images it teaches on, in the order of the logits; where the file names its own, they have to
            be the same.
        multi_label: whether these images may have several of the classes; treated likewise.
        preprocessing: of these images; another one than the teacher has learned with is a warning in the log.

    Raises:
        InputError: no checkpoint was given, or it holds another network, or one of other classes.
    """
    if checkpoint is None:
        raise InputError(
            "method 'distill' needs a fine-tuned large network: train one with --small_options \"{}\" --method single "
            "and give its models/model.pt as --teacher_checkpoint."
        )
    state, info = load_state_file(checkpoint), read_info(expanded(checkpoint))
    for name, wanted in (("class_names", class_names and list(class_names)), ("multi_label", multi_label)):
        if wanted is not None and info.get(name, wanted) != wanted:
            raise InputError(
                f"teacher_checkpoint {checkpoint} was trained with {name} {info[name]}, but here it is {wanted}, "
                "so its logits mean something else; give the model.pt of a run with the same classes."
            )
    try:
        unwrap(network).load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise InputError(
            f"teacher_checkpoint {checkpoint} doesn't fit the network named by large and large_options, or has other "
            f"classes ({reason}); give the model.pt of a run with the same network and classes."
        ) from error
    learned_with = completed(info["preprocessing"]) if info.get("preprocessing") else {}
    for name, value in plain_values(preprocessing or {}).items():
        if learned_with.get(name, value) != value:
            logger.warning("The teacher has learned with %s %s, but sees %s here.", name, learned_with[name], value)
