# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from monai.data import DistributedSampler

from dual_skd.distributed import own_share


def test_every_process_knows_the_items_that_it_reads():
    items = list("abcde")
    assert own_share(items, None) == items
    samplers = [
        DistributedSampler(items, even_divisible=False, num_replicas=2, rank=rank, shuffle=False) for rank in (0, 1)
    ]
    assert [own_share(items, sampler) for sampler in samplers] == [["a", "c", "e"], ["b", "d"]]
