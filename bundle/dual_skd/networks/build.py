# SPDX-License-Identifier: Apache-2.0
"""Networks by name, 2D and 3D.

Three kinds of names are known. A timm id (``tf_efficientnet_lite2``, ``convnext_atto``, ``vit_tiny_patch16_224``, ...)
in 2D, and the convolutional ones in 3D too, see :mod:`.volumetric`; MONAI's ResNet, DenseNet and ViT, 2D and 3D, see
:data:`MONAI`; and ``package.module:Name`` for one of your own, see :mod:`.allowed`. Every network returns one tensor of
logits (N, num_classes).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from monai.networks.nets import DenseNet, ResNet, ViT
from monai.utils import ensure_tuple_rep
from timm.models import build_model_with_cfg
from timm.models.efficientnet import EfficientNet, _gen_efficientnet_lite
from torch import Tensor, nn

from dual_skd.errors import InputError, did_you_mean
from dual_skd.networks.allowed import build_own_network, is_own
from dual_skd.networks.inspect import unwrap
from dual_skd.networks.volumetric import to_volumetric

# Width and depth multipliers of EfficientNet-Lite. Only the tf_ variants: they pad as TensorFlow does (SAME), and so do
# the published weights; the other variants give different logits with the same tensors.
EFFICIENTNET_LITE = {
    "tf_efficientnet_lite0": (1.0, 1.0),
    "tf_efficientnet_lite1": (1.0, 1.1),
    "tf_efficientnet_lite2": (1.1, 1.2),
    "tf_efficientnet_lite3": (1.2, 1.4),
    "tf_efficientnet_lite4": (1.4, 1.8),
}
MONAI_RESNET = {
    "monai_resnet10": ("basic", (1, 1, 1, 1)),
    "monai_resnet18": ("basic", (2, 2, 2, 2)),
    "monai_resnet34": ("basic", (3, 4, 6, 3)),
    "monai_resnet50": ("bottleneck", (3, 4, 6, 3)),
    "monai_resnet101": ("bottleneck", (3, 4, 23, 3)),
    "monai_resnet152": ("bottleneck", (3, 8, 36, 3)),
    "monai_resnet200": ("bottleneck", (3, 24, 36, 3)),
}
MONAI_DENSENET = {
    "monai_densenet121": (6, 12, 24, 16),
    "monai_densenet169": (6, 12, 32, 32),
    "monai_densenet201": (6, 12, 48, 32),
    "monai_densenet264": (6, 12, 64, 48),
}
MONAI = [*MONAI_RESNET, *MONAI_DENSENET, "monai_vit"]
# what timm's functions take beside the options of a network
LOADING = {
    *inspect.signature(timm.create_model).parameters, *inspect.signature(build_model_with_cfg).parameters,
    "features_only", "feature_cls", "out_indices", "pruned",
} - {"kwargs"}  # fmt: skip


def build_network(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 1,
    spatial_dims: int = 2,
    image_size: int | Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    """Builds a randomly initialised classifier.

    Args:
        name: a timm id, a name of :data:`MONAI`, or ``package.module:Name``.
        num_classes: number of logits.
        in_channels: channels of the image, 1 for grey.
        spatial_dims: 2 for images (N, C, H, W), 3 for volumes (N, C, H, W, D).
        image_size: pixels, one number or one per axis. Needed by networks with position embeddings only.
        options: constructor arguments of the network: ``embed_dim``, ``depth``, ``num_heads``, ``dims``, ``depths``,
            ``drop_rate``, ... For timm's EfficientNets also ``depths``, the blocks of each stage, at most those that
            the network has; a list that is too short leaves out the last stages, so that ``[1, 3, 3, 2, 1, 1]`` is
            the lower part of ``tf_efficientnet_lite2``, 0.91 of 4.8 million parameters, and the head (1280) reads the
            last stage that is left. For ``tf_efficientnet_lite*`` also the multipliers ``width`` and ``depth``: 0.4 in
            place of 1.1 leaves 0.89 million. Stem (32) and head keep their widths, as in the family's definition.

    Returns:
        a module from (N, in_channels, H, W[, D]) to logits (N, num_classes).

    Raises:
        InputError: unknown name or option (with near matches), or sizes that the network can't have.

    Example:
        >>> network = build_network("tf_efficientnet_lite2", num_classes=3, width=0.4)
        >>> network(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 3])
    """
    if spatial_dims not in (2, 3):
        raise InputError(f"spatial_dims is {spatial_dims!r}; expected 2 (images) or 3 (volumes).")
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{what} is {value!r}; expected a whole number of at least 1.")
    sizes: dict[str, Any] = {"num_classes": num_classes, "spatial_dims": spatial_dims}
    if is_own(name):
        return build_own_network(name, **sizes, in_channels=in_channels, image_size=image_size, options=options)
    if name in MONAI_RESNET:
        block, layers = MONAI_RESNET[name]
        options = {"block": block, "layers": layers, "block_inplanes": (64, 128, 256, 512)} | options
        return _construct(name, ResNet, options, **sizes, n_input_channels=in_channels)
    if name in MONAI_DENSENET:
        options = {"block_config": MONAI_DENSENET[name]} | options
        sizes = {"out_channels": num_classes, "spatial_dims": spatial_dims}
        return _construct(name, DenseNet, options, **sizes, in_channels=in_channels)
    if name == "monai_vit":
        if image_size is None and "img_size" not in options:
            raise InputError("monai_vit has position embeddings and needs image_size, in pixels; give image_size.")
        # MONAI's default Tanh after the head would bound the logits to [-1, 1].
        options = {"img_size": image_size, "patch_size": 16, "classification": True, "post_activation": None} | options
        return _construct(name, VisionTransformer, options, **sizes, in_channels=in_channels)
    network = _build_timm(
        name, spatial_dims, image_size, options | {"num_classes": num_classes, "in_chans": in_channels}
    )
    return to_volumetric(network) if spatial_dims == 3 else network


class VisionTransformer(ViT):
    """MONAI's ViT with a class token, returning its logits alone instead of (logits, hidden states).

    ``grid_size``, tokens per axis, is called as in timm's networks.
    """

    def __init__(self, *, img_size: Any, patch_size: Any, spatial_dims: int, **options: Any) -> None:
        super().__init__(img_size=img_size, patch_size=patch_size, spatial_dims=spatial_dims, **options)
        sizes = (ensure_tuple_rep(size, spatial_dims) for size in (img_size, patch_size))
        self.grid_size = tuple(image // patch for image, patch in zip(*sizes, strict=True))
        for block in self.blocks:  # MONAI makes it but doesn't use it, and DistributedDataParallel waits for gradients
            block.norm_cross_attn.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


def _build_timm(
    name: str, spatial_dims: int, image_size: int | Sequence[int] | None, options: dict[str, Any]
) -> nn.Module:
    """A network of timm, in 2D."""
    check_timm_name(name)
    _refuse_loading(name, options)
    base = name.split(".")[0]
    is_efficientnet = timm.model_entrypoint(base).__module__ == EfficientNet.__module__
    depths = options.pop("depths", None) if is_efficientnet else None
    if base in EFFICIENTNET_LITE and {"width", "depth"} & options.keys():
        width, depth = EFFICIENTNET_LITE[base]
        width, depth = options.pop("width", width), options.pop("depth", depth)
        if not (width > 0 and depth > 0):
            raise InputError(f"{name}: width {width} and depth {depth} are multipliers and have to be positive.")
        # bn_eps and pad_type are what makes a "tf_" variant, see timm's own entry points of the family.
        options = {"bn_eps": 1e-3, "pad_type": "same"} | options
        network = _construct(
            name, _gen_efficientnet_lite, options, variant=base, channel_multiplier=width, depth_multiplier=depth
        )
    else:
        if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            if spatial_dims == 3:
                raise InputError(f"{name} has no 3D form here: it isn't convolutional; use monai_vit for volumes.")
            if image_size is not None:
                options.setdefault("img_size", image_size)
        network = _construct(name, timm.create_model, options, model_name=name)
    if depths is not None:
        _keep_blocks(network, depths, name)
    return network


def _refuse_loading(name: str, options: Mapping[str, Any]) -> None:
    """Refuses options that aren't the network's but of timm's loader: some fetch files, and others open them."""
    found = sorted(LOADING & options.keys())
    if found:
        raise InputError(
            f"{name}: {', '.join(found)} {'are' if len(found) > 1 else 'is'} no option of the network; weights come "
            "from the option pretrained alone."
        )


def _keep_blocks(network: EfficientNet, depths: Sequence[int], name: str) -> None:
    """Leaves the first blocks of each stage, and as many stages as ``depths`` has numbers, in place."""
    known = [len(stage) for stage in network.blocks]
    fits = 0 < len(depths) <= len(known) and all(1 <= n <= most for n, most in zip(depths, known, strict=False))
    if not fits:
        raise InputError(
            f"{name}: depths {list(depths)} must be the number of blocks of each stage from the first on, at most "
            f"{known}; leave stages out at the end of the list only."
        )
    network.blocks = nn.Sequential(*(stage[:count] for stage, count in zip(network.blocks, depths, strict=False)))
    # timm calls the norms so, of whatever kind they are; the last one's width is the stage's
    norms = [layer for key, layer in network.blocks[-1].named_modules() if re.search(r"\bbn\d$", key)]
    width = norms[-1].weight.numel()
    head = network.conv_head
    if len(depths) < len(known):  # the head reads another stage
        network.conv_head = nn.Conv2d(width, head.out_channels, 1, bias=head.bias is not None)


def _construct(name: str, builder: Any, options: Mapping[str, Any], **arguments: Any) -> nn.Module:
    """Calls a library's constructor and turns its complaints about our arguments into one sentence."""
    try:
        return builder(**arguments, **{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()})
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if found:
            known = _constructor_arguments(found[1], name)
            raise InputError(
                f"{name} has no option {found[2]!r}{did_you_mean(found[2], known)}"
                + (f"; it takes: {', '.join(sorted(known))}." if known else ".")
            ) from error
        shown = {key: value for key, value in options.items() if key not in ("num_classes", "in_chans")}
        reason = str(error) or f"{type(error).__name__} in its constructor"
        raise InputError(f"{name} can't be built with {shown}: {reason}; change these options.") from error


def _constructor_arguments(class_name: str, name: str) -> list[str]:
    """Names of the arguments of the class that refused one; empty where the class can't be found."""
    if name in MONAI:
        found: Any = ResNet if name in MONAI_RESNET else DenseNet if name in MONAI_DENSENET else ViT
    else:
        found = getattr(inspect.getmodule(timm.model_entrypoint(name.split(".")[0])), class_name, None)
    if found is None:
        return []
    extra = ["width", "depth"] if name.split(".")[0] in EFFICIENTNET_LITE else []
    extra += ["depths"] if issubclass(found, EfficientNet) else []
    return [key for key in inspect.signature(found).parameters if key not in ("self", "kwargs")] + extra


def check_timm_name(name: str) -> None:
    """Raises an ``InputError`` with near matches where timm knows no network of this name."""
    if not isinstance(name, str) or not timm.is_model(name.split(".")[0]):
        known = [*timm.list_models(), *MONAI]
        raise InputError(
            f"Unknown network {name!r}{did_you_mean(str(name), known)}; give a timm id (timm.list_models() shows "
            f"all), {', '.join(MONAI)}, or package.module:Name for one of your own."
        )


def require_architecture(network: nn.Module, architecture: Mapping[str, Any]) -> nn.Module:
    """Returns the network, or refuses one that its description doesn't give: its ``model.pt`` could not be loaded.

    Args:
        network: the network to train.
        architecture: arguments of :func:`build_network`.

    Raises:
        InputError: their tensors differ.
    """
    with torch.device("meta"):
        described = build_network(**architecture).state_dict()
    found = {key: tuple(value.shape) for key, value in unwrap(network).state_dict().items()}
    wanted = {key: tuple(value.shape) for key, value in described.items()}
    different = [key for key in found | wanted if found.get(key) != wanted.get(key)]
    if different:
        key = different[0]
        raise InputError(
            f"network_def is another network than {architecture['name']} with its options ({len(different)} tensors "
            f"differ, {key} for example: {found.get(key, 'none')}, not {wanted.get(key, 'none')}), so its model.pt "
            "could never be loaded. Name your network instead: --small package.module:Name, a class or function that "
            "takes num_classes, in_channels and spatial_dims."
        )
    return network
