# SPDX-License-Identifier: Apache-2.0
"""Handler that measures a trained model on corrupted images beside the evaluation of the images as they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.networks import eval_mode
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from dual_skd.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt_input
from dual_skd.data.records.split_file import SECTIONS
from dual_skd.errors import InputError
from dual_skd.metrics.classification import classification_metrics
from dual_skd.metrics.definitions import METRICS
from dual_skd.runs.metrics_file import read_metrics, write_metrics
from dual_skd.training.trainer import plain

logger = logging.getLogger(__name__)


class RobustnessRecorder:
    """Corrupts every batch of an evaluation in all ways and strengths, and measures the networks on them.

    The images are decoded once, by the evaluation. ``metrics.json`` gets an entry ``robustness``, of another data set
    within its own entry: ``clean``, the metrics of ``student`` and ``auxiliary`` on the images as they are;
    ``corrupted``, the same by corruption and strength ("1" to "5"); ``mean``, their mean over both. Strengths are
    defined in :mod:`dual_skd.data.corruptions`.

    Args:
        output_dir: folder of ``metrics.json``.
        window: how the images' intensities were scaled.
        corruptions: some of :data:`dual_skd.data.corruptions.CORRUPTIONS`; None: all.
        strengths: some of 1 to 5.
        split: which data the engine evaluates, for the entry.
        source: the same in words.
        multi_label: see :func:`dual_skd.metrics.classification.classification_metrics`.
        auxiliary: measure the auxiliary too, where the engine has one; it takes as long again.
        twins: how many images at the end of the evaluation don't count, see
            :class:`dual_skd.evaluation.MetricsRecorder`.
        seed: of the noise.

    Raises:
        InputError: an unknown corruption or strength.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        window: str | Sequence[float] = "percentile",
        corruptions: Sequence[str] | None = None,
        strengths: Sequence[int] = STRENGTHS,
        split: str = "test",
        source: str | None = None,
        multi_label: bool = False,
        auxiliary: bool = True,
        twins: int = 0,
        seed: int = 0,
    ) -> None:
        names = list(CORRUPTIONS if corruptions is None else corruptions)
        known = set(names) <= set(CORRUPTIONS) and set(strengths) <= set(STRENGTHS)
        if not known or not names or not strengths:
            raise InputError(
                f"corruptions are some of {', '.join(CORRUPTIONS)} and strengths of 1 to 5, found {names} and "
                f"{list(strengths)}."
            )
        self.directory = Path(output_dir)
        self.window = window
        self.kinds = [(name, strength) for name in names for strength in strengths]
        self.split = split
        self.source = source
        self.multi_label = multi_label
        self.auxiliary = auxiliary
        self.twins = twins
        self.seed = seed
        self._labels: list[Tensor] = []
        self._logits: dict[tuple[str, int, str], list[Tensor]] = {}

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._labels, self._logits = [], {}

    def _measure_batch(self, engine: Engine) -> None:
        output = engine.state.output
        if not isinstance(output, Mapping):
            raise InputError("RobustnessRecorder needs whole batches; set decollate to false in the evaluator.")
        images, first = plain(output[Keys.IMAGE]), sum(map(len, self._labels))
        self._labels.append(torch.as_tensor(output[Keys.LABEL]).detach().cpu())
        networks, clean = {"student": engine.network}, {"student": output[Keys.PRED]}
        if self.auxiliary and getattr(engine, "auxiliary", None) is not None:
            networks["auxiliary"], clean["auxiliary"] = engine.auxiliary, output["auxiliary_pred"]
        for role, logits in clean.items():
            self._keep("none", 0, role, logits)
        layout = torch.channels_last if images.ndim == 4 else torch.channels_last_3d  # much faster on a CPU
        autocast = torch.autocast(images.device.type, **engine.amp_kwargs) if engine.amp else nullcontext()
        with eval_mode(*networks.values()), autocast:
            for name, strength in self.kinds:
                changed = corrupt_input(images, name, strength, window=self.window, first=first, seed=self.seed)
                changed = changed.contiguous(memory_format=layout)
                for role, network in networks.items():
                    self._keep(name, strength, role, engine.inferer(changed, network))

    def _keep(self, name: str, strength: int, role: str, logits: Tensor) -> None:
        self._logits.setdefault((name, strength, role), []).append(plain(logits).detach().double().cpu())

    def _finish(self, engine: Engine) -> None:
        labels = torch.cat(self._labels)
        counted = len(labels) - self.twins
        measured = {
            kind: classification_metrics(torch.cat(logits)[:counted], labels[:counted], multi_label=self.multi_label)
            for kind, logits in self._logits.items()
        }
        networks = list(dict.fromkeys(role for _, _, role in measured))
        corrupted: dict[str, dict[str, dict[str, Any]]] = {name: {} for name, _ in self.kinds}
        for name, strength in self.kinds:
            corrupted[name][str(strength)] = {role: measured[name, strength, role] for role in networks}
        entry: dict[str, Any] = {
            "split": self.split,
            "source": self.source,
            "images": counted,
            "clean": {role: measured["none", 0, role] for role in networks},
            "mean": {
                role: _mean([measured[name, strength, role] for name, strength in self.kinds]) for role in networks
            },
            "corrupted": corrupted,
        }
        record = read_metrics(self.directory)
        if self.split in SECTIONS:
            record["robustness"] = entry
        else:  # of another data set: beside its other numbers, and those of the run's own images stay
            record[self.split] = (record.get(self.split) or {}) | {"robustness": entry}
        write_metrics(self.directory, record)
        for role in networks:
            clean, mean = entry["clean"][role]["accuracy"], entry["mean"][role]["accuracy"]
            logger.log(
                logging.INFO if role == "student" else logging.DEBUG,
                "Corrupted images, %s: accuracy %.3f, mean of %d kinds and strengths; %.3f on the images as they are.",
                role, mean, len(self.kinds), clean,
            )  # fmt: skip
        self._start(engine)


def _mean(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean of each metric; None where one isn't defined."""
    found: dict[str, float | None] = {}
    for name in METRICS:
        known = [value for one in metrics if (value := one[name]) is not None]
        found[name] = sum(known) / len(metrics) if len(known) == len(metrics) else None
    return found
