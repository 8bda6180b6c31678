# SPDX-License-Identifier: Apache-2.0
"""What NVFlare's server needs of the bundle: the first global weights, and a filter against bad numbers.

NVFlare 2.7 and ``monai-nvflare`` are an environment of their own; nothing else here imports them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from monai_nvflare.monai_bundle_persistor import MonaiBundlePersistor
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from torch import nn

from dual_skd.serving.federated import AUXILIARY, Exchange, require_finite

# of train.json: what needs a site's images or writes into its folder
NO_SITE = {"device": "cpu", "initial_weights#report_path": None, "initial_weights#teach": None}


class DualModelPersistor(MonaiBundlePersistor):
    """The server's model: the student as it is selected from the large network, or the pair.

    The server needs the large network's weights, and no images.

    Args:
        bundle_root: folder of the bundle, relative to the app's.
        config_train_filename: configs below it; files of options may follow ``configs/train.json``.
        exchange: as in :class:`dual_skd.serving.federated.DualModelAlgo`.
        kwargs: of ``MonaiBundlePersistor``.
    """

    bundle_root: str

    def __init__(
        self,
        bundle_root: str,
        config_train_filename: str | Sequence[str] = "configs/train.json",
        *,
        exchange: Exchange = "student",
        **kwargs: Any,
    ) -> None:
        super().__init__(bundle_root, config_train_filename, network_def_key="network", **kwargs)
        self.exchange = exchange

    def _parse_config(self, fl_ctx: Any) -> None:
        self.bundle_root = os.path.join(fl_ctx.get_prop(FLContextKey.APP_ROOT), self.bundle_root)
        names = self.config_train_filename
        self.train_parser = ConfigParser()
        files = [os.path.join(self.bundle_root, name) for name in ([names] if isinstance(names, str) else names)]
        self.train_parser.read_config(files)
        for name, value in NO_SITE.items():
            self.train_parser[name] = value

    def _get_model(self, fl_ctx: Any) -> nn.Module:
        set_determinism(seed=self.train_parser.get_parsed_content("options").seed)  # as a site does
        student = self.train_parser.get_parsed_content("network")
        if self.exchange == "pair":
            # its tensors have the names that sites exchange
            student.add_module(AUXILIARY.rstrip("."), self.train_parser.get_parsed_content("auxiliary"))
        return student


class RefuseBadNumbers(DXOFilter):
    """Filter of the server's results: a site whose weights hold NaN or infinite numbers isn't averaged."""

    def __init__(self) -> None:
        kinds = [DataKind.WEIGHTS, DataKind.WEIGHT_DIFF]
        super().__init__(supported_data_kinds=kinds, data_kinds_to_filter=kinds)

    def process_dxo(self, dxo: DXO, shareable: Any, fl_ctx: Any) -> None:
        """Leaves the weights as they are.

        Raises:
            InputError: they aren't finite; NVFlare then counts the site as failed in this round.
        """
        site = shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, "a site")
        weights = {name: torch.as_tensor(values) for name, values in dxo.data.items()}
        require_finite(weights, f"The weights of {site}", "they aren't averaged. Look at the log of that site")
