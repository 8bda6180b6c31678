# SPDX-License-Identifier: Apache-2.0
"""A record of how a model came about: with what, from what and how fast."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

import dual_skd
from dual_skd.data.records.split_file import save_split
from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.networks.inspect import count_macs, count_parameters
from dual_skd.runs.model_file import plain_values
from dual_skd.utils.files import read_json, write_json

logger = logging.getLogger(__name__)


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
        architectures: per role (``student``, ``large``) the arguments of build_network, for parameters and MACs. A
            large network that can't be built for these images, or can't take them, has none: selection needs its
            weights alone.
        input_shape: (C, H, W[, D]) of one image.
        data: the images, whose division is written beside, as ``datalist.json``.
        extra: further entries, for instance the summary of the weight selection.

    Raises:
        InputError: another network than the large one can't be built for these images, or can't take them.
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
        data: Any = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(output_dir) / "run.json"
        networks = {}
        if architectures is not None and input_shape is not None:
            networks = {role: _network(role, one, input_shape) for role, one in architectures.items()}
        self.record: dict[str, Any] = {
            "versions": library_versions(),
            "seed": seed,
            "config": config or {},
            "data_hash": data_hash,
            "networks": networks,
            "input_shape": list(input_shape) if input_shape is not None else None,
            **(extra or {}),
        }
        self.data = data
        self._epochs: list[dict[str, float]] = []
        self._run_began = self._epoch_began = 0.0

    def attach(self, engine: Engine) -> None:
        """Registers the handler; attach it last, so that an epoch's time includes its validation."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        if getattr(engine.state, "rank", 0) == 0 and not read_json(self.path).get("finished"):
            self._prepare()

    def _prepare(self) -> None:
        """Writes what is known before the first step: so a site of a federation can measure a model that it is sent."""
        write_json(self.path, plain_values(self.record), private=True)
        if self.data is not None:
            save_split(self.data, self.path.with_name("datalist.json"))

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
        timings = {"epochs": self._epochs, "total_seconds": total}
        write_json(self.path, plain_values(self.record | {"timings": timings}), private=True)


def _network(role: str, architecture: Mapping[str, Any], input_shape: Sequence[int]) -> dict[str, Any]:
    try:
        return {"architecture": dict(architecture), **describe_architecture(architecture, input_shape)}
    except Exception as error:  # every network has its own for images that are too small for it
        if role == "large":
            logger.info("The large network's parameters and MACs aren't in run.json: %s", error)
            return {"architecture": dict(architecture)}
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{architecture['name']}, the {role}, can't take images of {' x '.join(map(str, input_shape[1:]))} "
            f"({error or type(error).__name__}); give another image_size, or another network."
        ) from error


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
