# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from monai.data import CacheDataset, DataLoader, Dataset
from torch.utils.data import RandomSampler, SequentialSampler

from dual_skd.data import PairedDataset, loader_workers
from dual_skd.runs import random_state
from dual_skd.runs.random_state import PairedSampler, ResumableSampler


def data(kind=Dataset) -> PairedDataset:
    labelled = [{"image": torch.full((1, 2), float(k)), "label": torch.tensor(k)} for k in range(5)]
    unlabelled = [{"image": torch.full((1, 2), 100.0 + k)} for k in range(7)]
    return PairedDataset(kind(labelled, None), Dataset(unlabelled, None))


def epoch(sampler) -> list[tuple[int, list[int]]]:
    return list(sampler)


def test_every_labelled_image_comes_once_with_as_many_others_as_asked_for():
    torch.manual_seed(0)
    pairs = epoch(PairedSampler(SequentialSampler(range(5)), unlabelled=7, ratio=3))
    assert [place for place, _ in pairs] == list(range(5)) and {len(others) for _, others in pairs} == {3}
    drawn = [other for _, others in pairs for other in others]
    # none a second time before all have been drawn
    assert sorted(drawn[:7]) == list(range(7)) == sorted(drawn[7:14])
    assert drawn != [other for _, others in epoch(PairedSampler(SequentialSampler(range(5)), 7, 3)) for other in others]


def test_a_pass_goes_on_in_its_middle():
    sampler = ResumableSampler(PairedSampler(RandomSampler(range(5)), unlabelled=7, ratio=2))
    torch.manual_seed(3)
    whole = epoch(sampler)
    torch.manual_seed(3)
    sampler.start = 2
    assert epoch(sampler) == whole[2:] and len(sampler) == 5


def test_processes_draw_different_images_of_one_order(monkeypatch):
    monkeypatch.setattr(random_state, "several_processes", lambda: True)
    monkeypatch.setattr(random_state.dist, "get_world_size", lambda: 2)
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(random_state.dist, "get_rank", lambda rank=rank: rank)
        torch.manual_seed(1)
        drawn += [other for _, others in PairedSampler(SequentialSampler(range(3)), 6) for other in others]
    assert sorted(drawn) == list(range(6))


def test_a_batch_holds_both():
    sampler = PairedSampler(SequentialSampler(range(5)), unlabelled=7, ratio=2)
    batches = list(DataLoader(data(), batch_size=4, sampler=sampler, num_workers=0))
    assert batches[0]["image"].shape == (4, 1, 2) and batches[0]["unlabelled"].shape == (4, 2, 1, 2)
    assert batches[0]["label"].tolist() == [0, 1, 2, 3] and batches[0]["unlabelled"].min() >= 100
    assert batches[1]["unlabelled"].shape == (1, 2, 1, 2) and len(data()) == 5


def test_processes_read_unless_all_images_are_in_memory():
    assert loader_workers(data(), 3) == 3
    in_memory = PairedDataset(*(CacheDataset([{"image": 0}], lambda item: item, progress=False) for _ in range(2)))
    assert loader_workers(in_memory, 3) == 0
    in_memory.unlabelled = Dataset([{"image": 0}])
    assert loader_workers(in_memory, 3) == 3
