# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.runs.devices import pick_device, to_device


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no CUDA device"):
        pick_device("cuda")
    with pytest.raises(InputError, match="Unknown device"):
        pick_device("gpu")


def test_auto_takes_the_device_of_the_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device() == torch.device("cuda", 3)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_faster_layout_changes_no_logit(dims):
    network = build_network("tf_efficientnet_lite0", num_classes=2, spatial_dims=dims, width=0.25).eval()
    x = torch.randn(2, 1, *[32] * dims)
    with torch.no_grad():
        wanted = network(x)
        moved = to_device(network, "cpu")
        torch.testing.assert_close(moved(x), wanted, rtol=1e-4, atol=1e-5)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert moved.conv_stem.weight.is_contiguous(memory_format=layout)
    assert moved.conv_head.weight.is_contiguous(memory_format=layout)
