# SPDX-License-Identifier: Apache-2.0
"""Handlers of ``run inference``: the table of predictions, and pictures of what spoke for them."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch import nn

from dual_skd.evaluation.explanation import explain, panels
from dual_skd.metrics.probabilities import probabilities
from dual_skd.metrics.uncertainty import Conformal
from dual_skd.serving.outcome import columns_of, predictions_of, row_of

logger = logging.getLogger(__name__)


class PredictionWriter:
    """Handler of an evaluator without labels: a CSV row per image with the probability of every class.

    Further columns are those of :class:`~dual_skd.serving.outcome.Prediction`: ``uncertainty``, and
    ``disagreement`` and ``prediction_set`` where there are an auxiliary and calibrated sets. An image that
    :class:`dual_skd.data.TolerantDataset` marked as unusable has a row too, with the problem instead of numbers, and
    the log counts such images: nothing is left out silently.

    Rows are written batch by batch, so that memory doesn't grow, to a file beside that takes the name at the end: a
    table under its name is complete.

    Args:
        path: the CSV file.
        images: paths of the images in the order of the loader.
        class_names: in the order of the predictions.
        multi_label: name every class above one half, joined by "|", instead of the most probable one.
        auxiliary_temperature: of the logits that the engine's output may have as ``auxiliary_pred``; ``pred`` are
            probabilities already.
        sets: rule of the prediction sets.
    """

    def __init__(
        self,
        path: str | Path,
        images: Sequence[str],
        class_names: Sequence[str],
        *,
        multi_label: bool = False,
        auxiliary_temperature: float | None = None,
        sets: Conformal | None = None,
    ) -> None:
        self.path = Path(path)
        self.draft = self.path.with_name(self.path.name + ".tmp")
        self.images = images
        self.class_names = class_names
        self.multi_label = multi_label
        self.auxiliary_temperature = auxiliary_temperature
        self.sets = sets
        self._rows = self._bad = 0

    def attach(self, engine: Engine) -> None:
        """Registers the handler; postprocessing has to turn logits into probabilities before."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._append)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._rows = self._bad = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.draft.unlink(missing_ok=True)

    def _append(self, engine: Engine) -> None:
        output = engine.state.output
        auxiliary = None
        if output[0].get("auxiliary_pred") is not None:
            logits = torch.stack([item["auxiliary_pred"] for item in output]).float().cpu()
            auxiliary = probabilities(logits, self.auxiliary_temperature, multi_label=self.multi_label).numpy()
        found = predictions_of(
            self.images[self._rows : self._rows + len(output)],
            torch.stack([item["pred"] for item in output]).float().cpu().numpy(),
            self.class_names,
            auxiliary=auxiliary,
            sets=self.sets,
            multi_label=self.multi_label,
            problems=[problem_of(item) for item in engine.state.batch],
        )
        with self.draft.open("a", newline="", encoding="utf-8") as file:
            columns = columns_of(self.class_names, auxiliary=auxiliary is not None, sets=self.sets is not None)
            table = csv.DictWriter(file, columns, restval="")
            if not self._rows:
                table.writeheader()
            table.writerows(map(row_of, found))
        self._rows += len(found)
        self._bad += sum(bool(one.problem) for one in found)

    def _finish(self, engine: Engine) -> None:
        if self._rows != len(self.images):
            raise ValueError(f"{self._rows} predictions for {len(self.images)} images; {self.draft} holds them.")
        os.replace(self.draft, self.path)
        if self._bad:
            logger.warning("%d images could not be used; the column problem of %s says why.", self._bad, self.path)


class ExplanationWriter:
    """Handler of an evaluator that writes, for each image, what spoke for its most probable class, as a PNG.

    Beside each other stand the image as the network took it and the same with the map of
    :func:`dual_skd.evaluation.explain`; of a volume three slices through the map's maximum, one below the other. They
    are pictures of patients, called by the row of the image in the table of predictions: ``000001.png`` is the first.

    Args:
        folder: made where it doesn't exist.
        network: the student.
        multi_label: see :func:`dual_skd.evaluation.explain`.
    """

    def __init__(self, folder: str | Path, network: nn.Module, *, multi_label: bool = False) -> None:
        self.folder = Path(folder)
        self.network = network
        self.multi_label = multi_label
        self._row = 0

    def attach(self, engine: Engine) -> None:
        """Registers the handler; postprocessing has to turn logits into probabilities before."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._explain)

    def _start(self, engine: Engine) -> None:
        self._row = 0
        self.folder.mkdir(parents=True, exist_ok=True)

    def _explain(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self._row += 1
            if problem_of(item):
                continue
            relevance = explain(self.network, item["image"], int(output["pred"].argmax()), multi_label=self.multi_label)
            picture(item["image"].cpu().numpy(), relevance).save(self.folder / f"{self._row:06d}.png")


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
