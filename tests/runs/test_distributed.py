# SPDX-License-Identifier: Apache-2.0
"""Two processes over gloo, forked: fresh ones would spend half a minute on imports."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import multiprocessing, nn

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.networks.inspect import unwrap
from dual_skd.runs.distributed import (
    RandomPerProcess,
    average_statistics,
    broadcast_networks,
    indices_of_rank,
    init_processes,
    items_of_rank,
    lost_process_named,
    on_rank_zero,
    parallel,
)
from dual_skd.training.label_free import LabelFreeHeads, LabelFreeTask
from dual_skd.training.schedule import Schedule
from dual_skd.training.task import DualModelTask
from dual_skd.training.trainer import DualModelTrainer

CLASSES, EPOCHS = 3, 4
forked = pytest.mark.skipif(
    not hasattr(os, "fork") or not dist.is_gloo_available(), reason="needs fork and a PyTorch with gloo"
)


def group_norm(width: int) -> nn.Module:
    return nn.GroupNorm(2, width)


def net(seed: int, norm=group_norm, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2),
        norm(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


def batches(count: int = 4, size: int = 8) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "image": torch.randn(size, 1, 9, 9, generator=generator),
            "label": torch.randint(CLASSES, (size,), generator=generator),
        }
        for _ in range(count)
    ]


# name -> normalisation, and what else is particular; the first can be compared with one process
LIKE_ONE = {
    "ema": (group_norm, {"accumulation_steps": 2}),
    "mutual": (group_norm, {"update": "mutual"}),
    "frozen": (group_norm, {"update": "frozen"}),
    "mutual_unlabelled": (
        group_norm, {"update": "mutual", "schedule": Schedule(EPOCHS, ramp_up=0.5, unlabelled_weight=1.0)}
    ),
    "ema_unlabelled": (group_norm, {"schedule": Schedule(EPOCHS, ramp_up=0.5, unlabelled_weight=1.0)}),
}  # fmt: skip
ALL = LIKE_ONE | {
    "ema_batch_norm": (nn.BatchNorm2d, {}),
    "mutual_batch_norm": (nn.BatchNorm2d, {"update": "mutual"}),
    "label_free": (nn.BatchNorm2d, {"schedule": Schedule(EPOCHS, label_free_epochs=2)}),
}


def train(name: str, rank: int | None = None) -> dict[str, dict[str, torch.Tensor]]:
    """States after a run of one process on whole batches, or of a process of two on its half of each."""
    norm, options = ALL[name]
    options = {"schedule": Schedule(EPOCHS, ramp_up=0.5), "update": "ema"} | options
    data = batches()
    if options["schedule"].unlabelled_weight:
        others = batches(size=16)
        data = [one | {"unlabelled": two["image"].unflatten(0, (8, 2))} for one, two in zip(data, others, strict=True)]
    student, auxiliary = net(0, norm), net(1, norm)
    heads = LabelFreeHeads(4, 8, 4) if options["schedule"].label_free_epochs else None
    if rank is not None:
        data = [{key: value[rank::2] for key, value in batch.items()} for batch in data]
        if rank == 1:  # weights that aren't those of the first process are replaced by them
            student, auxiliary = net(7, norm), net(8, norm)
        student, auxiliary = parallel(student), parallel(auxiliary, learns=options["update"] == "mutual")
    if options["update"] == "mutual":
        options["auxiliary_optimizer"] = torch.optim.SGD(auxiliary.parameters(), lr=0.1, momentum=0.9)
    accumulation = options.pop("accumulation_steps", 1)
    task = DualModelTask(student, nn.CrossEntropyLoss(), auxiliary, **options)
    trainer = DualModelTrainer(
        device="cpu",
        max_epochs=EPOCHS,
        train_data_loader=data,
        optimizer=torch.optim.SGD(
            [*student.parameters(), *(heads.parameters() if heads else [])], lr=0.1, momentum=0.9
        ),
        task=LabelFreeTask(task, heads) if heads else task,
        accumulation_steps=accumulation,
        decollate=False,
    )
    trainer.run()
    parts = {"student": student, "auxiliary": auxiliary, "heads": heads}
    return {who: unwrap(part).state_dict() for who, part in parts.items() if part is not None}


def only_first(where: str) -> str:
    with Path(where).open("a") as file:
        file.write("called ")
    return f"made by {dist.get_rank()}"


def refuse() -> None:
    raise InputError("no such data")


def pieces(rank: int, directory: str) -> dict:
    """What the functions do with tensors that differ between the processes."""
    norms = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm1d(2).eval()])
    for norm in norms:
        norm.running_mean += rank
        norm.running_var *= 1 + 2 * rank
    average_statistics([norms, None])
    linear = nn.Linear(2, 2).requires_grad_(False)
    linear.weight.copy_(torch.full((2, 2), float(rank + 5)))
    broadcast_networks([None, linear])
    answer = on_rank_zero(only_first, where=f"{directory}/calls")
    with pytest.raises(InputError, match="no such data"):
        on_rank_zero(refuse)
    with pytest.raises(ValueError, match="SyncBatchNorm"):  # so `parallel` uses it on CUDA alone
        nn.SyncBatchNorm(4)(torch.zeros(2, 4, 3, 3))
    with pytest.raises(InputError, match="1 validation images can't be divided among 2 processes"):
        indices_of_rank(1)
    assert list(indices_of_rank(0)) == []
    vit = parallel(build_network("monai_vit", num_classes=2, image_size=32, hidden_size=8, mlp_dim=8, num_layers=1,
                                 num_heads=2))  # fmt: skip
    for _ in range(2):  # PyTorch finds in the second step that a parameter has had no gradient in the first
        vit(torch.zeros(2, 1, 32, 32)).sum().backward()
    means = [norm.running_mean.tolist() for norm in norms]
    return {
        "means": means,
        "vars": norms[0].running_var.tolist(),
        "weight": linear.weight,
        "answer": answer,
        "places": list(indices_of_rank(5)),
    }


def work(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    torch.save({name: train(name, rank) for name in ALL} | pieces(rank, directory), f"{directory}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory) -> tuple[list[dict], Path]:
    directory = tmp_path_factory.mktemp("two")
    multiprocessing.start_processes(work, (str(directory),), nprocs=2, start_method="fork")
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in (0, 1)], directory


@forked
@pytest.mark.parametrize("name", ALL)
def test_all_networks_are_bit_for_bit_the_same_in_all_processes(of_two, name):
    first, second = (states[name] for states in of_two[0])
    for who in first:
        assert all(torch.equal(first[who][key], second[who][key]) for key in first[who]), who
    if "frozen" in name:
        assert all(torch.equal(first["auxiliary"][key], value) for key, value in net(1).state_dict().items())


@forked
@pytest.mark.parametrize("name", LIKE_ONE)
def test_two_processes_end_where_one_does_with_batches_twice_as_large(of_two, name):
    # 16 iterations in single precision; the sums are taken in another order
    found, wanted = of_two[0][0][name], train(name)
    for who in wanted:
        for key, value in wanted[who].items():
            torch.testing.assert_close(found[who][key], value, rtol=1e-4, atol=1e-5)
    start = net(0, ALL[name][0]).state_dict()
    assert max((wanted["student"][key] - start[key]).abs().max() for key in start) > 0.05


@forked
def test_running_statistics_are_the_means_of_all_processes_where_layers_train(of_two):
    for states in of_two[0]:
        assert states["means"] == [[0.5, 0.5], [float(states["means"][1][0])] * 2]
        assert states["vars"] == [2, 2]
    assert [states["means"][1][0] for states in of_two[0]] == [0, 1]


@forked
def test_batch_normalisation_sees_the_images_of_its_own_process_without_cuda(of_two):
    # so the result is close to, but not that of one process: what SyncBatchNorm is for, which needs CUDA
    wanted, found = train("ema_batch_norm")["student"], of_two[0][0]["ema_batch_norm"]["student"]
    assert not torch.allclose(found["0.weight"], wanted["0.weight"], atol=1e-4)
    assert torch.allclose(found["1.running_mean"], wanted["1.running_mean"], atol=0.1)


@forked
def test_all_start_with_the_weights_of_the_first_process_and_know_what_it_found(of_two):
    states, directory = of_two
    assert all(torch.equal(each["weight"], torch.full((2, 2), 5.0)) for each in states)
    assert [each["answer"] for each in states] == ["made by 0"] * 2
    assert (directory / "calls").read_text() == "called "


def test_one_process_calls_by_itself():
    assert on_rank_zero(lambda a: a + 1, a=1) == 2


def test_synchronised_normalisation_keeps_names_and_activations():
    network = build_network("tf_efficientnet_lite0", num_classes=2, width=0.25).eval()
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted, names = network(image), list(network.state_dict())
    made = parallel(network, learns=False, sync_batch_norm=True)
    norms = [layer for layer in made.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(layer, nn.SyncBatchNorm) for layer in norms)
    assert list(made.state_dict()) == names and torch.equal(made(image), wanted)


def test_processes_draw_different_numbers_from_generators_that_stay_alike():
    drawn, after = [], []
    for rank in (0, 1, 0):
        torch.manual_seed(3)
        drawn.append(RandomPerProcess(nn.Dropout(), rank)(torch.ones(64)))
        after.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(after[0], after[1])


# --- a process that is lost -------------------------------------------------------------------------------------------


def lose(rank: int, port: int, how: str, path: str) -> None:
    """The second process dies, or falls silent, in the third iteration; the first writes what it is told, and when."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    init_processes("cpu", timeout_minutes=0.05)
    student = parallel(net(0))
    trainer = DualModelTrainer(
        device="cpu",
        max_epochs=10,
        train_data_loader=batches(),
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        task=DualModelTask(student, nn.CrossEntropyLoss()),
        decollate=False,
    )
    if rank == 1:
        end = (lambda: os.kill(os.getpid(), signal.SIGKILL)) if how == "killed" else (lambda: time.sleep(60))
        trainer.add_event_handler(Events.ITERATION_STARTED(once=3), end)
    try:
        trainer.run()
    except InputError as error:
        Path(path).write_text(f"{trainer.state.iteration} {error}")
        raise SystemExit(1) from error


@forked
@pytest.mark.parametrize("how", ["killed", "silent"])
def test_a_lost_process_ends_the_others_soon_with_a_sentence(tmp_path, how):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=lose, args=(rank, port, how, str(tmp_path / "said"))) for rank in (0, 1)]
    for process in both:
        process.start()
    both[0].join(50)  # 3 seconds without an answer, and the rest for a busy machine
    both[1].kill()
    both[1].join()
    assert both[0].exitcode == 1
    iteration, said = (tmp_path / "said").read_text().split(" ", 1)
    assert iteration == "3" and said.startswith("Another process of this run has ended or doesn't answer, so process 0")
    assert ("Timed out" in said) == (how == "silent")
    assert "last.pt" in said


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="out of memory"), lost_process_named():
        raise RuntimeError("out of memory")


def test_without_a_launcher_the_command_that_has_one_is_named(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set.*torchrun"):
        init_processes("cpu")


# --- shares -----------------------------------------------------------------------------------------------------------


def test_every_process_knows_the_items_that_it_reads():
    items = list("abcde")
    assert items_of_rank(items, None) == items_of_rank(items, indices_of_rank(5)) == items
    assert items_of_rank(items, range(1, 5, 2)) == ["b", "d"]


@forked
def test_images_to_evaluate_are_divided_without_filling_up(of_two):
    assert [each["places"] for each in of_two[0]] == [[0, 2, 4], [1, 3]]
