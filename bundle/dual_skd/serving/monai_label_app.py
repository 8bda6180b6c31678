# SPDX-License-Identifier: Apache-2.0
"""An app of MONAI Label for this bundle: its answers, training, and which image to label next.

Needs MONAI Label, whose server loads it from a small ``main.py``, see docs/howto/label_tool.md. Beside what
the stock app ``monaibundle`` does with a bundle,

* strategy and scoring method ``suggest`` order the images without labels as ``dual-skd suggest`` does;
* what is wrong with an image is said in the answer, not in the server's log alone;
* batch inference works without a GPU, and keeps its answers as labels with the tag ``original``.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monailabel
import torch
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import get_bundle_models

from dual_skd.data.records.record import Record
from dual_skd.errors import InputError, input_error_behind
from dual_skd.serving.suggestions.answers import ask
from dual_skd.serving.suggestions.pool import Prepared, without_copies
from dual_skd.serving.suggestions.strategies import rank
from dual_skd.serving.torch_predictor import TorchPredictor

logger = logging.getLogger(__name__)

SUGGEST = "suggest"  # the strategy, the scoring method, and the key of an image's rank in MONAI Label's store
NUMBER = 100  # images that get a rank
BAD_IMAGE, UNKNOWN_IMAGE = 422, 404  # of HTTP


class SuggestionScoring(ScoringMethod):
    """Ranks the images without labels, and notes the ranks in MONAI Label's store.

    Args:
        models: name of a bundle -> its model file.
    """

    def __init__(self, models: Mapping[str, Path]) -> None:
        super().__init__("Ranks images without labels by what their labels would teach")
        self._models = models

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Ranks anew.

        Args:
            request: ``model``: a bundle, by default the first; ``by``: a strategy of ``dual-skd suggest``; ``number``:
                how many images get a rank; ``seed``.
            datastore: each ranked image gets ``suggest``: ``rank`` from 1, ``score``, ``model`` and ``at``.

        Returns:
            number of images that were ranked and that have no label; why others can't be used.
        """
        model = self.model(request)
        predictor = TorchPredictor(model)
        ids = {datastore.get_image_uri(one): one for one in datastore.get_unlabeled_images()}
        prepared = Prepared(predictor, [Record(image, None) for image in sorted(ids)])
        by = request.get("by", "badge")
        answers = ask(predictor, prepared.batches(), features=by == "badge")
        images = [record.image for record in prepared.records]
        labelled = [datastore.get_image_uri(one) for one in datastore.get_labeled_images()]
        new, copies, _ = without_copies(images, labelled, spatial_dims=len(predictor.input_shape) - 1)
        chosen = rank(by, answers.of(new), int(request.get("number", NUMBER)), seed=int(request.get("seed", 0)),
                      copies=copies)  # fmt: skip
        stamp = {"model": model.stat().st_mtime_ns, "at": time.time()}
        for place, one in enumerate(chosen, 1):
            info = {"rank": place, "score": round(one.score, 6), **stamp}
            datastore.update_image_info(ids[images[new[one.image]]], {SUGGEST: info})
        problems = {ids[image]: problem for image, problem in prepared.problems}
        return {"ranked": len(chosen), "unlabelled": len(ids), "problems": problems}

    def ranked(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, dict[str, Any]]:
        """The images without labels that the last ranking by the present model has."""
        stamp = self.model(request).stat().st_mtime_ns
        infos = {one: datastore.get_image_info(one).get(SUGGEST) or {} for one in datastore.get_unlabeled_images()}
        present = {image: info for image, info in infos.items() if info.get("model") == stamp}
        last = max((info["at"] for info in present.values()), default=None)
        return {image: info for image, info in present.items() if info["at"] == last}

    def model(self, request: Mapping[str, Any]) -> Path:
        """The model file of the bundle that a request names, or of the first.

        Raises:
            InputError: there is no such bundle.
        """
        name = request.get("model") or next(iter(self._models))
        if name not in self._models:
            raise InputError(f"There is no model {name!r}; the server has {', '.join(self._models)}.")
        return self._models[name]


class SuggestionStrategy(Strategy):
    """The next image to label: the first by rank that hasn't been handed out.

    Images are ranked again when the model has changed, or when no ranked image is left.

    Args:
        scoring: ranks them.
    """

    def __init__(self, scoring: SuggestionScoring) -> None:
        super().__init__("The image whose label would teach most")
        self._scoring = scoring

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The next image.

        Args:
            request: as :class:`SuggestionScoring` takes it.
            datastore: of the images.

        Returns:
            its ``id``, ``rank`` and ``score``; None where no image without a label can be used.
        """
        found = self._scoring.ranked(request, datastore)
        if not found:
            self._scoring(request, datastore)
            found = self._scoring.ranked(request, datastore)
        if not found:
            return None
        name = request.get("strategy", SUGGEST)

        def order(image: str) -> tuple[float, int]:
            served = (datastore.get_image_info(image).get("strategy") or {}).get(name, {}).get("ts", 0)
            info = found[image]
            return (served if served >= int(info["at"]) else 0, info["rank"])

        image = min(found, key=order)
        return {"id": image, "rank": found[image]["rank"], "score": found[image]["score"]}


class DualSkdApp(MONAILabelApp):
    """The app; its arguments are those of MONAI Label."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundles: dict[str, str] = get_bundle_models(app_dir, conf)
        super().__init__(app_dir, studies, conf, name="dual-skd", description="Light classifiers",
                         version=monailabel.__version__)  # fmt: skip

    def init_infers(self) -> dict[str, Any]:
        """A task for each bundle."""
        return {name: BundleInferTask(path, self.conf) for name, path in self.bundles.items()}

    def init_trainers(self) -> dict[str, Any]:
        """The same for training."""
        tasks = {name: BundleTrainTask(path, self.conf) for name, path in self.bundles.items()}
        return {name: task for name, task in tasks.items() if task.is_valid()}

    def init_strategies(self) -> dict[str, Strategy]:
        """``suggest``, and MONAI Label's own."""
        return {SUGGEST: SuggestionStrategy(self._scoring()), "random": Random(), "first": First()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """``suggest``."""
        return {SUGGEST: self._scoring()}

    def _scoring(self) -> SuggestionScoring:
        return SuggestionScoring({name: Path(path) / "models" / "model.pt" for name, path in self.bundles.items()})

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """MONAI Label's, with a reason where an image can't be used.

        Raises:
            HTTPException: 404 for an unknown image id, 422 for an image that can't be used.
        """
        store, image = datastore or self.datastore(), request.get("image")
        try:
            if isinstance(image, str) and not Path(image).exists() and not store.get_image_uri(image):
                raise HTTPException(UNKNOWN_IMAGE, f"The store has no image {image!r}; give one of its ids.")
            found = super().infer(request, datastore)
        except Exception as error:
            reason = error.detail if isinstance(error, HTTPException) else input_error_behind(error)
            if reason is None:
                raise
            if "_image_id" in request:  # of a batch, which would end with it
                return {"params": {"problem": str(reason)}}
            raise error if isinstance(error, HTTPException) else HTTPException(BAD_IMAGE, str(reason)) from error
        if "_image_id" in request:
            self._keep(request, found["params"], store)
        return found

    def _keep(self, request: Mapping[str, Any], answer: Mapping[str, Any], store: Datastore) -> None:
        """Keeps an answer of a batch in the store, as a label that isn't final."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "label.json"
            file.write_text(json.dumps({"prediction": answer.get("prediction")}), encoding="utf-8")
            tag = request.get("label_tag", DefaultLabelTag.ORIGINAL)
            store.save_label(request["_image_id"], str(file), tag, {"model": request["model"]})

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """MONAI Label's, on the CPU where there is no GPU: its own choice of devices is empty then."""
        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False, "device": "cpu"}
        return super().batch_infer(request, datastore)

    def async_scoring(self, method: str | None, params: Any = None) -> Any:
        """MONAI Label's, which starts a process; after each next image, where the ranks are as they were, none."""
        scoring = self._scoring_methods[SUGGEST]
        if method is None and scoring.ranked({}, self.datastore()):
            return {}
        return super().async_scoring(method, params)

    def next_sample(self, request: dict[str, Any]) -> Any:
        """MONAI Label's, with a reason where there is none."""
        try:
            return super().next_sample(request)
        except InputError as error:
            raise HTTPException(BAD_IMAGE, str(error)) from error
