# SPDX-License-Identifier: Apache-2.0
"""The teacher of method ``distill``: a fine-tuned large network, with the classes of these images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.inspect import unwrap
from dual_skd.networks.weight_files import read_weights
from dual_skd.options import completed
from dual_skd.runs.model_file import plain_values

logger = logging.getLogger(__name__)


def load_teacher(
    network: nn.Module,
    checkpoint: str,
    *,
    class_names: Sequence[str] | None = None,
    multi_label: bool | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Gives the teacher of ``distill`` the weights of a fine-tuned large network, classifier included.

    Args:
        network: the teacher, built by the architecture of the checkpoint.
        checkpoint: ``models/model.pt`` of a run that trained the large network on the same classes.
        class_names: of the images it teaches on, in the order of the logits. A file that names classes has to have
            the same.
        multi_label: whether these images may have several of the classes; compared in the same way.
        preprocessing: of these images. If the teacher was trained with another one, the log has a warning.

    Raises:
        InputError: the checkpoint holds another network, or one of other classes.
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
        reason = str(error).splitlines()[1].strip()
        raise InputError(
            f"teacher_checkpoint {checkpoint} doesn't fit the network named by large and large_options, or has other "
            f"classes ({reason}); give the model.pt of a run with the same network and classes."
        ) from error
    trained_with = completed(info["preprocessing"]) if info.get("preprocessing") else {}
    for name, value in plain_values(preprocessing or {}).items():
        if trained_with.get(name, value) != value:
            logger.warning("The teacher was trained with %s %s, but gets %s here.", name, trained_with[name], value)
