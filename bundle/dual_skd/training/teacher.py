# SPDX-License-Identifier: Apache-2.0
"""The teacher of method ``distill``: a fine-tuned network of any architecture, with the classes of these images."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.described import OTHER_BYTES, WIDER, require_buildable
from dual_skd.networks.inspect import unwrap
from dual_skd.networks.weight_files import read_info, read_weights
from dual_skd.options import completed
from dual_skd.runs.model_file import plain_values

logger = logging.getLogger(__name__)


def teacher_architecture(checkpoint: str, large: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`dual_skd.networks.build_network` that give the teacher.

    Args:
        checkpoint: as :func:`load_teacher` takes it.
        large: arguments that give the large network.

    Returns:
        those in the checkpoint, or ``large`` where it has none, as a state dict of another program.

    Raises:
        InputError: no such file, or what it describes isn't a network that its weights could fill.
    """
    own = read_info(checkpoint).get("architecture")
    if own is None:
        return dict(large)
    path = Path(checkpoint)
    require_buildable(own, path, most_bytes=WIDER * path.stat().st_size + OTHER_BYTES)
    logger.info("The teacher is %s, from %s.", own["name"], checkpoint)
    return dict(own)


def load_teacher(
    network: nn.Module,
    checkpoint: str,
    *,
    class_names: Sequence[str] | None = None,
    multi_label: bool | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
) -> None:
    """Gives the teacher of ``distill`` the weights of a fine-tuned network, classifier included.

    Args:
        network: the teacher, built by :func:`teacher_architecture`.
        checkpoint: ``models/model.pt`` of a run that trained the teacher on the same classes.
        class_names: of the images it teaches on, in the order of the logits. A file that names classes has to have
            the same.
        multi_label: whether these images may have several of the classes; compared in the same way.
        preprocessing: of these images. If the teacher was trained with another one, the log has a warning.
        shape: (H, W[, D]) of these images; the teacher has to take them, which one with position embeddings may not.

    Raises:
        InputError: the checkpoint holds another network, one of other classes, or one that can't take images of this
            size.
    """
    state, info = read_weights(checkpoint)
    for name, expected in (("class_names", class_names and list(class_names)), ("multi_label", multi_label)):
        if expected is not None and info.get(name, expected) != expected:
            raise InputError(
                f"teacher_checkpoint {checkpoint} was trained with {name} {info[name]}, but here it is {expected}, "
                "so its logits mean something else; give the model.pt of a run with the same classes."
            )
    try:
        unwrap(network).load_state_dict(state)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error).splitlines()[1], 120, placeholder=" ...")
        raise InputError(
            f"teacher_checkpoint {checkpoint} isn't the network that it is taken for, or has other classes ({reason}); "
            "give models/model.pt of a run, which says which network it is."
        ) from error
    trained_with = completed(info["preprocessing"]) if info.get("preprocessing") else {}
    for name, value in plain_values(preprocessing or {}).items():
        if trained_with.get(name, value) != value:
            logger.warning("The teacher was trained with %s %s, but gets %s here.", name, trained_with[name], value)
    if shape is not None:
        _require_takes(unwrap(network), shape, checkpoint)


def _require_takes(network: nn.Module, shape: Sequence[int], checkpoint: str) -> None:
    """Refuses a teacher whose position embeddings, or axes, aren't those of the images that it is to teach on."""
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 1, *shape, device=next(network.parameters()).device))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"teacher_checkpoint {checkpoint} is no teacher for images of {' x '.join(map(str, shape))} pixels "
            f"({reason}); give image_size the size that the teacher was trained with."
        ) from error
    finally:
        network.train(training)
