# SPDX-License-Identifier: Apache-2.0
"""A hospital's part in federated training: what its client receives, trains and sends.

MONAI's client (:class:`monai.fl.client.MonaiAlgo`) runs the bundle's ``train.json`` and exchanges the student. The one
here adds what a pair of networks, unequal hospitals and bad numbers need. NVFlare runs either, by ``monai-nvflare``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dual_skd.errors import InputError, choose, sentence_of
from dual_skd.networks.inspect import unwrap
from dual_skd.utils.wording import counted, first_few

logger = logging.getLogger(__name__)

Exchange = Literal["student", "pair"]
Statistics = Literal["average", "local"]
AUXILIARY = "auxiliary."  # before the names of the auxiliary's tensors, where the pair is exchanged
SITE = "{site}"  # in options of the bundle: the site's name


class DualModelAlgo(MonaiAlgo):
    """MONAI's client of a federation, for a student and its auxiliary.

    It differs from ``MonaiAlgo`` in this:

    - The auxiliary can be exchanged, too; otherwise each site goes on with its own.
    - Batch normalisation can stay at the site (FedBN, Li et al. 2021).
    - A site counts by its images (FedAvg, McMahan et al. 2017), not by its iterations.
    - Weights with NaN or infinite numbers are neither sent nor taken. A round that failed doesn't count at the site.
    - The global model is evaluated on the site's validation images, by the trainer's own evaluator.
    - ``{site}`` in an option stands for the site's name, as in ``"output_dir": "results/{site}"``.

    Args:
        bundle_root: folder of the bundle.
        exchange: ``student``, or ``pair``: student and auxiliary.
        normalisation: ``average`` exchanges batch normalisation like other weights, ``local`` leaves it at the site.
        config_evaluate_filename: as in ``MonaiAlgo``; None for the validation images of training.
        kwargs: of ``monai.fl.client.MonaiAlgo``.

    Raises:
        InputError: an unknown word.
    """

    train_kwargs: dict[str, Any]  # the types of MONAI's attributes
    eval_kwargs: dict[str, Any]
    evaluator: Any
    stats_sender: Any
    pre_filters: Any
    post_weight_filters: Any

    def __init__(
        self,
        bundle_root: str,
        *,
        exchange: Exchange = "student",
        normalisation: Statistics = "average",
        config_evaluate_filename: str | list | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(bundle_root, config_evaluate_filename=config_evaluate_filename, **kwargs)
        self.exchange = choose({word: word for word in get_args(Exchange)}, exchange, "exchange")
        self.normalisation = choose({word: word for word in get_args(Statistics)}, normalisation, "normalisation")
        self._local: set[str] = set()
        self._received: dict[str, Tensor] = {}
        self._own_start: dict[str, Tensor] = {}

    def initialize(self, extra: Mapping[str, Any] | None = None) -> None:
        """Builds the site's trainer and evaluator.

        Raises:
            InputError: the site's data or options can't be used; there is no pair, or no batch normalisation.
        """
        extra = dict(extra or {})
        site = str(extra.get(ExtraItems.CLIENT_NAME, "noname"))
        self.train_kwargs, self.eval_kwargs = _of_site(self.train_kwargs, site), _of_site(self.eval_kwargs, site)
        sender = extra.pop(ExtraItems.STATS_SENDER, None)
        try:
            super().initialize(extra)
        except Exception as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            raise InputError(f"{site} can't take part: {sentence}") from error  # MONAI has put its own error around it
        self.evaluator = self.evaluator or self.train_workflow.evaluator
        self.stats_sender = sender or self.stats_sender
        if self.stats_sender is not None:
            self.stats_sender.attach(self.trainer)
            self.stats_sender.attach(self.evaluator)
        networks = self._networks()
        self._local = normalisation_of(networks) if self.normalisation == "local" else set()
        if self.normalisation == "local" and not self._local:
            raise InputError(
                "normalisation is 'local', but the network has no batch normalisation; choose 'average', or another "
                "network."
            )
        self._own_start = {name: tensor.cpu().clone() for name, tensor in tensors_of(networks).items()}
        # the first and the last filter, so that others see what is exchanged: weights that are encrypted, compressed
        self.pre_filters = [*(self.pre_filters or []), self._receive]
        self.post_weight_filters = [self._send, *(self.post_weight_filters or [])]

    def train(self, data: ExchangeObject, extra: dict | None = None) -> None:
        """Trains a round from the global weights; one that fails leaves the site's count of epochs as it was."""
        state = self.trainer.state
        before = state.epoch, state.iteration
        try:
            super().train(data, extra)
        except Exception:
            state.epoch, state.iteration = before
            raise

    def _networks(self) -> dict[str, nn.Module]:
        """The exchanged networks, by what stands before the names of their tensors."""
        networks = {"": unwrap(self.trainer.network)}
        if self.exchange == "pair":
            auxiliary = self.trainer.task.auxiliary
            if auxiliary is None:
                raise InputError(
                    "exchange is 'pair', but the method has one network; choose 'student', or another method."
                )
            networks[AUXILIARY] = unwrap(auxiliary)
        return networks

    def _receive(self, data: ExchangeObject, extra: Any = None) -> ExchangeObject:
        """Takes the global weights of the auxiliary, and hands on the student's; what is local stays as it is."""
        weights = {name: torch.as_tensor(values) for name, values in (data.weights or {}).items()}
        require_finite(weights, "The global weights", "the site doesn't take them. Look at the log of the server")
        self._compare_start(weights)
        weights = {name: values for name, values in weights.items() if name not in self._local}
        self._received = {name: values for name, values in weights.items() if name.startswith(AUXILIARY)}
        own = tensors_of(self._networks())
        with torch.no_grad():
            for name, values in self._received.items():
                if name in own:
                    own[name].copy_(values.reshape(own[name].shape))
        return ExchangeObject(weights={n: v for n, v in weights.items() if n not in self._received})

    def _compare_start(self, weights: Mapping[str, Tensor]) -> None:
        """Refuses first weights of another network, and warns of others than those selected here."""
        own = {name: values for name, values in self._own_start.items() if name not in self._local or name in weights}
        for name, values in own.items():
            if name not in weights or weights[name].numel() != values.numel():
                found = tuple(weights[name].shape) if name in weights else "missing"
                raise InputError(
                    f"The server's {name} is {found}, this site's is {tuple(values.shape)}; give server and sites the "
                    "same options (class_names, small, small_options) and the same exchange."
                )
        self._own_start = {}
        other = [name for name, values in own.items() if not torch.equal(values, weights[name].reshape(values.shape))]
        if other:
            logger.warning(
                "%s of the first global weights aren't those that this site has selected (%s). That is right where the "
                "federation goes on from a former one; else give server and sites the same options and versions.",
                counted(len(other), "tensor"), first_few(other, 3),
            )  # fmt: skip

    def _send(self, data: ExchangeObject, extra: Mapping[str, Any] | None = None) -> ExchangeObject:
        """Adds the auxiliary's weights and the site's images, and leaves out what is local."""
        weights = {name: values.clone() for name, values in (data.weights or {}).items()}  # MONAI sends the live ones
        if self.exchange == "pair" and ExtraItems.MODEL_TYPE not in (extra or {}):
            of_auxiliary = tensors_of({AUXILIARY: self._networks()[AUXILIARY]})
            differs = data.weight_type == WeightType.WEIGHT_DIFF
            for name, values in of_auxiliary.items():
                if name not in self._local:
                    weights[name] = values.cpu() - self._received[name].cpu() if differs else values.cpu().clone()
        weights = {name: values for name, values in weights.items() if name not in self._local}
        require_finite(
            weights, "The weights of this site", "they aren't sent. Look for bad images with `dual-skd check`"
        )
        statistics = dict(data.statistics or {})
        if statistics.get(FlStatistics.NUM_EXECUTED_ITERATIONS):  # by which the server weights what it averages
            statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] = len(self.trainer.data_loader.dataset)
        return ExchangeObject(weights=weights, weight_type=data.weight_type, statistics=statistics)


def tensors_of(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All tensors of several networks, each name with its network's prefix before it."""
    return {
        prefix + name: tensor.detach() for prefix, one in networks.items() for name, tensor in one.state_dict().items()
    }


def normalisation_of(networks: Mapping[str, nn.Module]) -> set[str]:
    """Names of the weights and statistics of batch normalisation, as in :func:`tensors_of`."""
    return {
        f"{prefix}{place}.{name}" if place else prefix + name
        for prefix, network in networks.items()
        for place, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        for name in module.state_dict()
    }


def require_finite(weights: Mapping[str, Tensor], whose: str, consequence: str) -> None:
    """Raises an ``InputError`` for weights with NaN or infinite numbers; it says whose they are and what follows."""
    bad = [name for name, one in weights.items() if one.is_floating_point() and not bool(torch.isfinite(one).all())]
    if bad:
        raise InputError(
            f"{whose} hold NaN or infinite numbers in {counted(len(bad), 'tensor')} ({first_few(bad, 3)}), so "
            f"{consequence}."
        )


def _of_site(options: Mapping[str, Any], site: str) -> dict[str, Any]:
    return {name: one.replace(SITE, site) if isinstance(one, str) else one for name, one in options.items()}
