# SPDX-License-Identifier: Apache-2.0
"""The method and its controls by one word each.

Every row fixes the weights of the large network that the two light ones start from, and how the auxiliary moves. A
rule is an element rule of :mod:`dual_skd.selection` (``uniform``, ``complement``, ...), or ``scratch`` for random
initialisation. A claim about the method has to be compared with these rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from dual_skd.errors import choose


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
    "distill": Method("uniform", "teacher", "frozen", "a fine-tuned network teaches (set teacher_checkpoint)"),
    "single": Method("uniform", None, "none", "weight selection alone, plain fine-tuning"),
    "scratch": Method("scratch", None, "none", "random initialisation, plain training"),
}


def method(name: str) -> Method:
    """Returns the row called ``name``.

    Raises:
        InputError: there is no such row; the message lists them.
    """
    return choose(METHODS, name, "method")
