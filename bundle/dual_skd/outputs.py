# SPDX-License-Identifier: Apache-2.0
"""The model that a run leaves behind: a file of weights with all that is needed to rebuild the network."""

from __future__ import annotations

import json
import logging
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dual_skd.data.demo import of_demo
from dual_skd.data.reading.locators import expanded
from dual_skd.errors import InputError, did_you_mean
from dual_skd.evaluation.calibration import logits_of, probabilities
from dual_skd.evaluation.predictions import read_predictions
from dual_skd.evaluation.recorder import read_json
from dual_skd.evaluation.uncertainty import Conformal, fit_conformal
from dual_skd.files import replace_file, sha256_of
from dual_skd.momentum import unwrap
from dual_skd.networks import build_network
from dual_skd.weight_files import load_state_file, read_info

logger = logging.getLogger(__name__)


def bundle_root() -> str:
    """The bundle's folder: beside this package, else (installed) where `run` puts it on the module path, else here."""
    here = Path.cwd()
    places = [Path(__file__).resolve().parent.parent, *map(Path, sys.path), here, here / "bundle"]
    return str(next((place for place in places if (place / "configs" / "metadata.json").is_file()), here))


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
    directory.mkdir(parents=True, exist_ok=True)
    info = plain_values({
        "architecture": architecture, "class_names": class_names, "preprocessing": preprocessing or {},
        "multi_label": multi_label, **({} if calibration is None else {"calibration": calibration}),
    })  # fmt: skip
    kept: Any = unwrap(network).state_dict()
    state: Any = OrderedDict((key, _own(value)) for key, value in kept.items())
    state._metadata = kept._metadata | {"": kept._metadata[""] | info}
    path = directory / f"{name}.pt"
    replace_file(path, lambda draft: torch.save(state, draft))
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
        InputError: no such file, it holds no architecture, or its tensors aren't those of the architecture.
    """
    path = model_file(path)
    state = load_state_file(path, words=["the output_dir of a run"])
    info = read_info(path)
    missing = [key for key in ("architecture", "class_names") if not info.get(key)]
    if missing:
        raise InputError(
            f"{path} has weights but no {' and no '.join(missing)}, so its network isn't known; give the "
            "models/model.pt or model.safetensors of a training run."
        )
    network = build_network(**info["architecture"])
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"{path}: weights and architecture don't belong together ({first}); train anew.") from error
    return network.to(device).eval(), info


def model_file(path: str | Path) -> Path:
    """The file that a path of a model stands for: itself, or of a folder its ``model.pt`` or ``models/model.pt``."""
    path = expanded(path)
    if path.is_dir():
        return next((p for p in (path / "model.pt", path / "models" / "model.pt") if p.is_file()), path / "model.pt")
    return path


def find_model(output_dir: str | Path, root: str | Path | None = None, images: str | Path | None = None) -> str:
    """Path of the model to use: of a run's ``output_dir`` if it has one, else of the bundle's own ``models`` folder.

    The second is said in the log, and the demo's model, which comes with the bundle, answers for the demo's images
    only: a mistyped ``output_dir`` must not pass for a finished run.

    Args:
        output_dir: of the run.
        root: the bundle's folder; None looks in ``output_dir`` alone.
        images: what the model is asked about: "demo", a path, or None where that isn't known.

    Raises:
        InputError: there is no such model, or ``output_dir`` is that of a run without a model.
    """
    output_dir = Path(output_dir)
    own = output_dir / "models" / "model.pt"
    if own.is_file():
        return str(own)
    if (output_dir / "datalist.json").is_file():
        raise InputError(
            f"{output_dir} is the folder of a run, but {own} isn't there: it hasn't kept a model yet, or the file was "
            "removed; give the same training command again to go on."
        )
    near = did_you_mean(output_dir.name, _runs_beside(output_dir))
    wanted = f"give --output_dir of a finished run{near}, or train one (dual-skd train DATA -o OUT)"
    shipped = None if root is None else Path(root) / "models" / "model.pt"
    if shipped is None or shipped == own or not shipped.is_file():
        raise InputError(f"No model in {own}: {wanted}.")
    if images is not None:
        refuse_demo_model(shipped, [images], f"No model in {own}: {wanted}")
    logger.warning(
        "No model in %s: the bundle's own is used, %s%s; for a model of your own give --output_dir of its run.",
        own,
        shipped,
        f" ({about})" if (about := read_json(shipped.with_suffix(".json")).get("description")) else "",
    )
    return str(shipped)


def refuse_demo_model(model: str | Path, images: Iterable[Any], remedy: str) -> None:
    """Refuses to ask the demo's model, as it comes with the bundle, about other images than the demo's.

    Args:
        model: the file; it is the demo's if ``model.json`` beside it says so and has its SHA-256.
        images: paths, "demo", or arrays, which are never the demo's.
        remedy: what to do, the beginning of the message.

    Raises:
        InputError: it is the demo's, and one of the images isn't.
    """
    others = [image for image in images if not (isinstance(image, str | Path) and of_demo(image))]
    record = read_json(Path(model).with_suffix(".json"))
    if not others or "demo_test" not in record or record.get("sha256") != sha256_of(model):
        return
    shown = others[0] if isinstance(others[0], str | Path) else "an array"
    raise InputError(
        f"{remedy}. The model that comes with the bundle, {model}, isn't asked about {shown}: it was "
        f"{record['description']}. To see what it says all the same: dual-skd predict FILE --model demo."
    )


def _runs_beside(output_dir: Path) -> list[str]:
    parent = output_dir.absolute().parent
    return [path.parent.name for path in parent.glob("*/models")] if parent.is_dir() else []


def load_auxiliary(model: str | Path) -> nn.Module | None:
    """Returns the auxiliary that was saved beside a student's ``model.pt``, in evaluation mode, or None without one."""
    path = Path(model).with_name("auxiliary.pt")
    return load_model(path)[0] if path.is_file() else None


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
    return fit_conformal(p.numpy(), table.labels, alpha=alpha)


def plain_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same in JSON's types.

    Raises:
        InputError: something in it has none.
    """
    try:
        return json.loads(json.dumps(content, default=_as_builtin, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A model file takes plain values only (numbers, words, lists, dicts), found {_plain_culprit(error)}; "
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


def _plain_culprit(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _own(tensor: Tensor) -> Tensor:
    # A view or a tensor shared by two names would be written with its whole storage, or refused by safetensors.
    return tensor.detach().as_subclass(Tensor).to("cpu", copy=True).contiguous()
