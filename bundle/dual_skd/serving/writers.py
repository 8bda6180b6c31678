# SPDX-License-Identifier: Apache-2.0
"""Handlers of ``run inference`` that write the table of predictions, and maps of what they rest on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch import nn

from dual_skd.evaluation.explanation import explain, panels
from dual_skd.metrics.probabilities import probabilities
from dual_skd.serving.prediction import PredictionRules, PredictionTable
from dual_skd.utils.files import make_folder, replace_file

logger = logging.getLogger(__name__)


class PredictionWriter:
    """Handler of an evaluator without labels that writes predictions.csv, a row per image.

    An image that :class:`dual_skd.data.TolerantDataset` marked as unusable has a row too, with the problem instead of
    numbers, and the log counts such images: nothing is left out silently.

    Args:
        path: the CSV file, see :class:`~dual_skd.serving.prediction.PredictionTable`.
        images: paths of the images in the order of the loader.
        rules: of the model.
        former: arguments of inference.json before version 0.2, in place of ``rules``; they work until 0.3.
    """

    def __init__(
        self, path: str | Path, images: Sequence[str], rules: PredictionRules | None = None, **former: Any
    ) -> None:
        self.path = path
        self.images = images
        self._former = former
        if rules is None:
            warnings.warn("PredictionWriter takes `rules`; copy inference.json again.", FutureWarning, stacklevel=2)
            rules = PredictionRules(former["class_names"], bool(former.get("multi_label")), former.get("sets"))
        self.rules = rules

    def attach(self, engine: Engine) -> None:
        """Registers the handler; postprocessing has to turn both networks' logits into probabilities before."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._append)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._rows = self._unusable = 0
        self._table = PredictionTable(self.path, self.rules.columns())

    def _append(self, engine: Engine) -> None:
        output = engine.state.output
        if self._former:
            self._as_formerly(output)
        keys = ["pred", *["auxiliary_pred"] * self.rules.auxiliary]
        found = self.rules.predictions(
            self.images[self._rows : self._rows + len(output)],
            *(torch.stack([item[key] for item in output]).float().cpu().numpy() for key in keys),
            problems=[problem_of(item) for item in engine.state.batch],
        )
        self._table.append(found)
        self._rows += len(found)
        self._unusable += sum(bool(one.problem) for one in found)

    def _as_formerly(self, output: Sequence[dict[str, Any]]) -> None:
        """Turns the auxiliary's logits into probabilities, which the former postprocessing didn't."""
        auxiliary = "auxiliary_pred" in output[0]
        if auxiliary != self.rules.auxiliary:
            self.rules = replace(self.rules, auxiliary=auxiliary)
            self._table = PredictionTable(self.path, self.rules.columns())
        for item in output if auxiliary else ():
            logits, temperature = item["auxiliary_pred"].float()[None], self._former.get("auxiliary_temperature")
            item["auxiliary_pred"] = probabilities(logits, temperature, multi_label=self.rules.multi_label)[0]

    def _finish(self, engine: Engine) -> None:
        if self._rows != len(self.images):
            raise ValueError(f"{self._rows} predictions for {len(self.images)} images; {self.path} isn't written.")
        self._table.publish()
        if self._unusable:
            logger.warning("%d images could not be used; the column problem of %s says why.", self._unusable, self.path)


class ExplanationWriter:
    """Handler of an evaluator that writes a PNG per image: the image, and beside it the same with its map.

    The map of :func:`dual_skd.evaluation.explain` shows what speaks for the most probable class; of a volume there are
    three slices through its maximum. These are pictures of patients, named by their row in the table of predictions:
    ``000001.png`` is the first.

    Args:
        folder: made where it doesn't exist.
        network: the student.
        multi_label: see :func:`dual_skd.evaluation.explain`.
    """

    def __init__(self, folder: str | Path, network: nn.Module, *, multi_label: bool = False) -> None:
        self.folder = Path(folder)
        self.network = network
        self.multi_label = multi_label

    def attach(self, engine: Engine) -> None:
        """Registers the handler; postprocessing has to turn logits into probabilities before."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._explain)

    def _start(self, engine: Engine) -> None:
        self._row = 0
        make_folder(self.folder, private=True)

    def _explain(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self._row += 1
            if problem_of(item):
                continue
            relevance = explain(self.network, item["image"], int(output["pred"].argmax()), multi_label=self.multi_label)
            side_by_side = picture(item["image"].cpu().numpy(), relevance)
            target = self.folder / f"{self._row:06d}.png"
            replace_file(target, partial(side_by_side.save, format="PNG"), private=True)


def picture(image: np.ndarray, relevance: np.ndarray) -> Image.Image:
    """Panels of an image (1, H, W[, D]) and its map (H, W[, D]): without the map on the left, with it on the right."""
    pairs = [(Image.fromarray(panel.picture), Image.fromarray(panel.overlay)) for panel in panels(image, relevance)]
    canvas = Image.new("RGB", (2 * max(left.width for left, _ in pairs), sum(left.height for left, _ in pairs)))
    top = 0
    for left, right in pairs:
        canvas.paste(left, (0, top))
        canvas.paste(right, (canvas.width // 2, top))
        top += left.height
    return canvas


def problem_of(item: object) -> str:
    """What is wrong with an image of a batch, "" for nothing."""
    return item.get("problem", "") if isinstance(item, Mapping) else ""
