# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind: the model with all that is needed to rebuild it, and a record of how it came about."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import dual_skd
from dual_skd.errors import InputError
from dual_skd.evaluation.calibration import fit_temperature, probabilities
from dual_skd.evaluation.predictions import read_predictions, write_predictions
from dual_skd.evaluation.recorder import LAST, Measured, rank, read_json, write_json
from dual_skd.evaluation.uncertainty import Conformal, fit_conformal
from dual_skd.files import replace_file
from dual_skd.momentum import unwrap
from dual_skd.networks import build_network, count_macs, count_parameters
from dual_skd.pretrained import load_state_file

logger = logging.getLogger(__name__)

# what a model file holds beside the weights
INFO = ("architecture", "class_names", "preprocessing", "multi_label", "calibration")


def bundle_root() -> str:
    """The bundle's folder: beside this package, else (installed) where `run` puts it on the module path, else here."""
    here = Path.cwd()
    places = [Path(__file__).resolve().parent.parent, *map(Path, sys.path), here, here / "bundle"]
    return str(next((place for place in places if (place / "configs" / "metadata.json").is_file()), here))


# --- the model --------------------------------------------------------------------------------------------------------


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
    info = _plain({
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
    state = load_state_file(path)
    info = _read_info(path)
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
    path = Path(path).expanduser()
    if path.is_dir():
        return next((p for p in (path / "model.pt", path / "models" / "model.pt") if p.is_file()), path / "model.pt")
    return path


def find_model(output_dir: str | Path, root: str | Path) -> str:
    """Path of the model to use: of a run's ``output_dir`` if it has one, else of the bundle's own ``models`` folder.

    The second is said in the log: a mistyped ``output_dir`` must not pass for a finished run.

    Raises:
        InputError: neither is there.
    """
    own, shipped = Path(output_dir) / "models" / "model.pt", Path(root) / "models" / "model.pt"
    if own.is_file():
        return str(own)
    if not shipped.is_file():
        raise InputError(
            f"No model in {own} or {shipped}; train one first (run training with this output_dir), "
            "or give --output_dir of a finished run."
        )
    logger.warning(
        "No model in %s: the bundle's own is used, %s%s; for a model of your own give --output_dir of its run.",
        own,
        shipped,
        f" ({about})" if (about := read_json(shipped.with_suffix(".json")).get("description")) else "",
    )
    return str(shipped)


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
    return temperature_of(_read_info(path)) if path.is_file() else None


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
    p = torch.from_numpy(table.probabilities)
    logits = torch.where(p > 0, p, 5e-7).log()  # 0 was anything up to this in files of six decimals
    nll = functional.nll_loss(logits, torch.from_numpy(table.labels)).item()
    same = table.class_names == list(info["class_names"]) and len(table.images) == calibration["images"]
    if not same or abs(nll - calibration["nll_before"]) > 0.01 * max(nll, 0.01):
        logger.warning("%s isn't of this model, so there are no prediction sets.", path)
        return None
    p = probabilities(logits, temperature_of(info) if calibrate else None)
    return fit_conformal(p.numpy(), table.labels, alpha=alpha)


def _read_info(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
        content = {key: json.loads(texts[key]) for key in INFO if key in texts}
    else:
        content = torch.load(path, "cpu", weights_only=True)
        content = getattr(content, "_metadata", {}).get("", content)  # older files: beside a nested state dict
    return {key: content[key] for key in INFO if key in content}


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
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


class BestModelSaver:
    """Handler of the evaluator that keeps the best student as ``model.pt`` and ``model.safetensors``.

    The evaluator needs a :class:`~dual_skd.evaluation.recorder.MetricsRecorder` attached before. Of equal epochs the
    one with the lower NLL is kept. With each of them goes the temperature that calibrates it, fitted on the images of
    that evaluation. With an auxiliary, the one of that epoch goes to ``auxiliary.pt``. ``state_dict`` makes a
    resumed run remember the best: it is one of the objects of :class:`dual_skd.checkpoints.Checkpoints`.

    Args:
        directory: ``output_dir/models``.
        network: the student.
        architecture: see :func:`save_model`.
        class_names: in the order of the logits.
        preprocessing: see :func:`save_model`.
        multi_label: see :func:`save_model`.
        key_metric: name in ``engine.state.metrics``, lower is better for nll, ece and brier; or ``last``.
        auxiliary: the second network, or None.
        auxiliary_architecture: where it differs from the student's.
        predictions: CSV for the predictions of the best student, uncalibrated, in the form of ``predictions_test.csv``.
    """

    def __init__(
        self,
        directory: str | Path,
        network: nn.Module,
        *,
        architecture: Mapping[str, Any],
        class_names: Sequence[str],
        preprocessing: Mapping[str, Any] | None = None,
        multi_label: bool = False,
        key_metric: str = "macro_auc",
        auxiliary: nn.Module | None = None,
        auxiliary_architecture: Mapping[str, Any] | None = None,
        predictions: str | Path | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.network = network
        self.auxiliary = auxiliary
        self.key_metric = key_metric
        self.described: dict[str, Any] = {
            "class_names": list(class_names), "preprocessing": dict(preprocessing or {}), "multi_label": multi_label,
        }  # fmt: skip
        self.architecture = dict(architecture)
        self.auxiliary_architecture = dict(auxiliary_architecture or architecture)
        self.predictions = Path(predictions) if predictions else None
        self.best = (float("-inf"), float("-inf"))
        self.best_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Registers the handler at the end of every evaluation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.key_metric not in (LAST, *engine.state.metrics) and self.best_epoch == 0:
            defined = ", ".join(sorted(engine.state.metrics)) or "nothing; attach a MetricsRecorder before"
            logger.warning(
                "Key metric %s isn't defined on this validation data (a class without images?); until that "
                "changes the model with the lowest NLL is kept. Defined: %s.",
                self.key_metric,
                defined,
            )
        value = rank(engine.state.metrics, self.key_metric, engine.state.epoch)
        if self.best_epoch and value <= self.best:
            return
        self.best, self.best_epoch = value, engine.state.epoch
        self._save(engine)
        if self.key_metric != LAST:
            logger.info("Best %s so far in epoch %d: model saved.", self.key_metric, self.best_epoch)

    def keep_last(self, trainer: Engine) -> None:
        """Registers with the trainer as well: a run without validation images keeps the model of its last epoch."""
        trainer.add_event_handler(Events.COMPLETED, self._save_unless_best)

    def _save_unless_best(self, trainer: Engine) -> None:
        if self.best_epoch == 0:
            logger.warning("There was no validation, so the model of the last epoch, %d, is kept.", trainer.state.epoch)
            self._save(trainer)
        elif self.key_metric == LAST and self.best_epoch < trainer.state.epoch:
            logger.warning(
                "The last epoch with a validation, %d, is kept; for the very last give a val_interval that divides "
                "the epochs.", self.best_epoch,
            )  # fmt: skip

    def _save(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        measured = getattr(engine.state, "measured", None)  # by the MetricsRecorder; a trainer has none
        calibration = self._calibration(measured and measured.logits, measured and measured.labels)
        save_model(
            self.directory, self.network, architecture=self.architecture, calibration=calibration, **self.described
        )
        self._write_predictions(measured)
        if calibration is None:
            logger.warning("There are no validation predictions, so probabilities stay uncalibrated (temperature 1).")
        else:
            logger.info(
                "Temperature %.3f, fitted on %d validation images: NLL %.4f, before %.4f.",
                *(calibration[key] for key in ("temperature", "images", "nll_after", "nll_before")),
            )
        if self.auxiliary is not None:
            save_model(
                self.directory, self.auxiliary, architecture=self.auxiliary_architecture, name="auxiliary",
                calibration=self._calibration(measured and measured.auxiliary, measured and measured.labels),
                safetensors=False, **self.described,
            )  # fmt: skip
        else:  # of a former run in this folder
            (self.directory / "auxiliary.pt").unlink(missing_ok=True)

    def _calibration(self, logits: Tensor | None, labels: Tensor | None) -> dict[str, float] | None:
        if logits is None or labels is None:
            return None
        return fit_temperature(logits, labels, multi_label=self.described["multi_label"], sharpen=False)._asdict()

    def _write_predictions(self, measured: Measured | None) -> None:
        if self.predictions is None:
            return
        if measured is None or not measured.images:  # a former run's would be taken for this model's
            self.predictions.unlink(missing_ok=True)
            return
        multi_label = self.described["multi_label"]
        p = probabilities(measured.logits, multi_label=multi_label)
        write_predictions(
            self.predictions, measured.images, measured.labels.numpy(), p.numpy(), self.described["class_names"],
            multi_label=multi_label,
        )  # fmt: skip

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs to know."""
        return {"best": self.best[0], "best_nll": self.best[1], "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Takes up the state of a former run."""
        self.best = float(state["best"]), float(state.get("best_nll", "-inf"))  # absent in older files
        self.best_epoch = int(state["best_epoch"])


# --- the run ----------------------------------------------------------------------------------------------------------


def describe_architecture(architecture: Mapping[str, Any], input_shape: Sequence[int]) -> dict[str, int]:
    """Parameters and MACs of a network, without computing or holding it.

    Args:
        architecture: arguments of :func:`dual_skd.networks.build_network`.
        input_shape: (C, H, W[, D]) of one image.
    """
    with torch.device("meta"):
        network = build_network(**architecture)
    return {"parameters": count_parameters(network), "macs": count_macs(network, input_shape)}


class RunRecord:
    """Handler of the trainer that writes ``run.json``: with what, from what and how fast the model was made.

    The file is renewed after every epoch, so that a run that is stopped is recorded too. Its ``state_dict`` makes a
    resumed run's record that of the whole: when it started, its epochs, and the time of all its parts.

    Args:
        output_dir: folder of ``run.json``.
        seed: the run's seed.
        config: the hyper-parameters, as the user gave them.
        data_hash: see ``DataList.hash``.
        architectures: per role (``student``, ``large``) the arguments of build_network, for parameters and MACs.
        input_shape: (C, H, W[, D]) of one image.
        extra: further entries, for instance the summary of the weight selection.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        seed: int | None = None,
        config: Mapping[str, Any] | None = None,
        data_hash: str | None = None,
        architectures: Mapping[str, Mapping[str, Any]] | None = None,
        input_shape: Sequence[int] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(output_dir) / "run.json"
        networks = {
            role: {"architecture": dict(architecture), **describe_architecture(architecture, input_shape)}
            for role, architecture in (architectures or {}).items()
            if input_shape is not None
        }
        self.record: dict[str, Any] = {
            "versions": library_versions(),
            "seed": seed,
            "config": config or {},
            "data_hash": data_hash,
            "networks": networks,
            "input_shape": list(input_shape) if input_shape is not None else None,
            **(extra or {}),
        }
        self._epochs: list[dict[str, float]] = []
        self._run_began = self._epoch_began = 0.0

    def attach(self, engine: Engine) -> None:
        """Registers the handler; attach it last, so that an epoch's time includes its validation."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._run_began = time.perf_counter()
        self.record |= {"started": _now(), "finished": None, "device": _device_name(engine.state.device)}
        self._epochs = []
        self._write(engine)

    def _start_epoch(self, engine: Engine) -> None:
        self._epoch_began = time.perf_counter()

    def _finish_epoch(self, engine: Engine) -> None:
        seconds = round(time.perf_counter() - self._epoch_began, 3)
        self._epochs.append({"epoch": engine.state.epoch, "seconds": seconds})
        self._write(engine)

    def _finish(self, engine: Engine) -> None:
        self.record["finished"] = _now()
        self._write(engine)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know."""
        seconds = time.perf_counter() - self._run_began
        return {"started": self.record["started"], "epochs": list(self._epochs), "seconds": seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up the state of a former run, once this one has started."""
        self.record["started"], self._epochs = state["started"], list(state["epochs"])
        self._run_began = time.perf_counter() - state["seconds"]

    def _write(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        total = round(time.perf_counter() - self._run_began, 3)
        write_json(self.path, _plain(self.record | {"timings": {"epochs": self._epochs, "total_seconds": total}}))


def library_versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run."""
    versions = {"dual_skd": dual_skd.__version__, "python": platform.python_version()}
    for package in ("torch", "monai", "timm", "pytorch-ignite", "numpy", "pydicom", "nibabel"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _device_name(device: Any) -> str:
    device = torch.device(device or "cpu")
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
