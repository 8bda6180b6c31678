# SPDX-License-Identifier: Apache-2.0
"""The model that a run leaves behind: a file of weights with all that is needed to rebuild the network."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dual_skd.errors import InputError
from dual_skd.metrics.calibration import logits_of
from dual_skd.metrics.predictions import read_predictions
from dual_skd.metrics.probabilities import probabilities
from dual_skd.metrics.uncertainty import Conformal, fit_conformal
from dual_skd.networks.build import build_network
from dual_skd.networks.described import load_described
from dual_skd.networks.inspect import unwrap
from dual_skd.networks.weight_files import read_info, read_weights
from dual_skd.runs.model_info import require_model_info
from dual_skd.runs.places import bundle_root as bundle_root  # configs written before version 0.2 look for it here
from dual_skd.runs.places import find_model as find_model
from dual_skd.runs.places import model_file
from dual_skd.utils.files import read_json, replace_file
from dual_skd.utils.tensor_files import save_tensors

logger = logging.getLogger(__name__)


def save_model(
    directory: str | Path,
    network: nn.Module,
    *,
    architecture: Mapping[str, Any],
    class_names: Sequence[str],
    preprocessing: Mapping[str, Any] | None = None,
    multi_label: bool = False,
    calibration: Mapping[str, Any] | None = None,
    name: str = "model",
    safetensors: bool = True,
) -> Path:
    """Writes ``<name>.pt`` and ``<name>.safetensors``, each enough to rebuild the network.

    ``model.pt`` is a plain state dict, as MONAI's tools and PyTorch's ``load_state_dict`` take it. Architecture, class
    names, preprocessing, ``multi_label`` and calibration are where PyTorch keeps what describes a state dict, in
    ``_metadata[""]``, as plain values, so ``torch.load(weights_only=True)`` reads it all. The .safetensors file carries
    the same as JSON in its metadata.

    Args:
        directory: made where it doesn't exist.
        network: its weights are written; wrappers (DistributedDataParallel, torch.compile) are taken off.
        architecture: arguments of :func:`dual_skd.networks.build_network` that give this network.
        class_names: in the order of the logits.
        preprocessing: what an image needs before it enters the network (size, window, spacing), as plain values.
        multi_label: whether an image may have any number of the classes, so that each has a probability of its own.
        calibration: ``temperature`` by which the logits are to be divided, and how it was fitted: ``images``,
            ``nll_before``, ``nll_after``; None where there were no images to fit it on.
        name: name of the files without ending.
        safetensors: write the second file too.

    Returns:
        path of the .pt file.

    Raises:
        InputError: architecture or preprocessing hold more than plain values.
    """
    directory = Path(directory)
    info = plain_values({
        "architecture": architecture, "class_names": class_names, "preprocessing": preprocessing or {},
        "multi_label": multi_label, **({} if calibration is None else {"calibration": calibration}),
    })  # fmt: skip
    kept: Any = unwrap(network).state_dict()
    state: Any = OrderedDict((key, _own(value)) for key, value in kept.items())
    state._metadata = kept._metadata | {"": kept._metadata[""] | info}
    path = directory / f"{name}.pt"
    replace_file(path, partial(save_tensors, state))
    if safetensors:
        texts = {key: json.dumps(value) for key, value in info.items()}
        replace_file(path.with_suffix(".safetensors"), lambda draft: save_file(state, draft, texts))
    return path


def load_model(path: str | Path, *, device: str | torch.device = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Rebuilds a network that :func:`save_model` wrote.

    Args:
        path: the .pt or .safetensors file, or the folder with ``model.pt``, or a run's ``output_dir``.
        device: where the network goes.

    Returns:
        the network in evaluation mode, which returns logits as they are, and the dict of ``architecture``,
        ``class_names``, ``preprocessing``, ``multi_label`` and, where a temperature was fitted, ``calibration``; see
        :func:`temperature_of`.

    Raises:
        InputError: no such file, it holds no architecture or values that no run writes, or its tensors aren't those of
            the architecture.
    """
    path = model_file(path)
    state, info = read_weights(path, words=["the output_dir of a run"])
    missing = [key for key in ("architecture", "class_names") if not info.get(key)]
    if missing:
        raise InputError(
            f"{path} has weights but no {' and no '.join(missing)}, so its network isn't known; give the "
            "models/model.pt or model.safetensors of a training run."
        )
    require_model_info(info, path)
    return load_described(info["architecture"], state, path).to(device).eval(), info


def load_begun(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuilds the network of a run, as :func:`load_model`; where it has kept none yet, with random weights.

    So a site of a federation measures weights that it is sent, whatever it has trained itself.

    Args:
        path: ``models/model.pt`` of the run, whose ``run.json`` says which network it trains.
    """
    record = read_json(Path(path).parents[1] / "run.json")
    if Path(path).is_file() or "model" not in record:
        return load_model(path)
    info = {"architecture": record["networks"]["student"]["architecture"], **record["model"]}
    require_model_info(info, Path(path))
    return build_network(**info["architecture"]).eval(), info


def load_auxiliary(model: str | Path, *, device: str | torch.device = "cpu") -> nn.Module | None:
    """Returns the auxiliary that was saved beside a student's ``model.pt``, in evaluation mode, or None without one."""
    path = Path(model).with_name("auxiliary.pt")
    return load_model(path, device=device)[0] if path.is_file() else None


def temperature_of(info: Mapping[str, Any]) -> float | None:
    """Temperature by which a model's logits are to be divided; None (so 1) where none was fitted, as in old files.

    Args:
        info: what :func:`load_model` returns beside the network.
    """
    return (info.get("calibration") or {}).get("temperature")


def auxiliary_temperature(model: str | Path) -> float | None:
    """The same of the auxiliary beside a student's ``model.pt``; None without one."""
    path = Path(model).with_name("auxiliary.pt")
    return temperature_of(read_info(path)) if path.is_file() else None


def conformal_rule(
    output_dir: str | Path, info: Mapping[str, Any], *, alpha: float = 0.1, calibrate: bool = True
) -> Conformal | None:
    """Calibrates prediction sets on a run's validation predictions, by the score LAC.

    Their logits are taken as the logarithms of the written probabilities, which they are up to a constant that no
    softmax sees.

    Args:
        output_dir: of the run, with ``predictions_validation.csv``.
        info: of the model, from :func:`load_model`.
        alpha: share of images whose set may miss the label.
        calibrate: divide the logits by the model's temperature, as it is done with those of the new images.

    Returns:
        None where there are no such predictions, where they aren't this model's (a model from elsewhere, or the
        auxiliary), and with several labels per image.

    Raises:
        InputError: the file isn't a table of predictions, or alpha isn't between 0 and 1.
    """
    path, calibration = Path(output_dir) / "predictions_validation.csv", info.get("calibration")
    if info.get("multi_label") or calibration is None or not path.is_file():
        return None
    table = read_predictions(path)
    logits = logits_of(table.probabilities)
    nll = functional.nll_loss(logits, torch.from_numpy(table.labels)).item()
    same = table.class_names == list(info["class_names"]) and len(table.images) == calibration["images"]
    if not same or abs(nll - calibration["nll_before"]) > 0.01 * max(nll, 0.01):
        logger.warning("%s isn't of this model, so there are no prediction sets.", path)
        return None
    p = probabilities(logits, temperature_of(info) if calibrate else None)
    rule = fit_conformal(p.numpy(), table.labels, alpha=alpha)
    if rule.reason:
        logger.warning("%s.", rule.reason)
    return rule


def plain_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same in JSON's types.

    Raises:
        InputError: something in it has none.
    """
    try:
        return json.loads(json.dumps(content, default=_as_builtin, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A model file takes plain values only (numbers, words, lists, dicts), found {error}; "
            "convert it before saving."
        ) from error


def _as_builtin(value: Any) -> Any:
    if isinstance(value, Path | torch.device | torch.dtype):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | set | frozenset):
        return list(value)
    if hasattr(value, "tolist"):  # numpy numbers and small tensors
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")


def _own(tensor: Tensor) -> Tensor:
    # A view or a tensor shared by two names would be written with its whole storage, or refused by safetensors.
    return tensor.detach().as_subclass(Tensor).to("cpu", copy=True).contiguous()
