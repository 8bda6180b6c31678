# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import logging

import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.engines.utils import IterationEvents
from torch import nn

from dual_skd.errors import InputError
from dual_skd.runs.bad_numbers import Buffers, files_of, gradient_norm, is_finite, tensorboard_scalars
from dual_skd.runs.checkpoint import Checkpoints
from dual_skd.training.schedule import Schedule
from dual_skd.training.task import DualModelTask
from dual_skd.training.trainer import DualModelTrainer

torch.set_num_threads(1)
BAD = pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4, 3))


def batches(count: int = 4) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.randn(6, 1, 9, 9, generator=generator), "label": torch.randint(3, (6,), generator=generator)}
        for _ in range(count)
    ]


def trainer_of(network: nn.Module, data, *, epochs: int = 1, task=None, **options) -> DualModelTrainer:
    return DualModelTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=data,
        optimizer=options.pop("optimizer", None) or torch.optim.AdamW(network.parameters(), 0.01),
        task=task or DualModelTask(network, nn.CrossEntropyLoss()),
        decollate=False,
        **options,
    )


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plant(trainer: DualModelTrainer, where: str, iterations: tuple[int, ...], bad: float) -> None:
    """Makes loss or gradient bad in the iterations of these numbers, as a handler or an overflow would."""

    def spoil_loss(engine):
        if engine.state.iteration in iterations:
            engine.state.output["loss"] = engine.state.output["loss"] * bad

    def spoil_gradient(engine):
        if engine.state.iteration in iterations:
            next(engine.network.parameters()).grad[0, 0, 1, 1] = bad

    event = IterationEvents.LOSS_COMPLETED if where == "loss" else IterationEvents.BACKWARD_COMPLETED
    trainer.add_event_handler(event, spoil_loss if where == "loss" else spoil_gradient)


def spoiled(data: list[dict], batch: int, bad: float, item: int = 2) -> list[dict]:
    data = copy.deepcopy(data)
    data[batch]["image"][item, 0, 3, 4] = bad
    return data


@BAD
@pytest.mark.parametrize("where", ["input", "loss", "gradient"])
@pytest.mark.parametrize("update", ["none", "ema", "mutual"])
def test_training_stops_in_that_iteration_with_the_weights_of_the_step_before(where, update, bad):
    """The sixth batch of four per epoch is bad: all is as after five steps of a good run."""

    def make(stop_at: int | None):
        student, auxiliary = net(0), net(1)
        optimizer = torch.optim.AdamW(auxiliary.parameters(), 0.01) if update == "mutual" else None
        schedule = Schedule(epochs=3, ramp_up=0.0)
        task = DualModelTask(
            student, nn.CrossEntropyLoss(), auxiliary, update=update, schedule=schedule, auxiliary_optimizer=optimizer
        )
        data = batches()
        trainer = trainer_of(student, data, epochs=3, task=task)
        if stop_at:
            trainer.add_event_handler(
                IterationEvents.MODEL_COMPLETED,
                lambda engine: engine.terminate() if engine.state.iteration == stop_at else None,
            )
        return trainer, student, auxiliary, data

    trainer, student, auxiliary, data = make(None)
    if where == "input":
        trainer.add_event_handler(
            IterationEvents.MODEL_COMPLETED,
            lambda engine: data.__setitem__(1, spoiled(data, 1, bad)[1]) if engine.state.iteration == 5 else None,
        )
    else:
        plant(trainer, where, (6,), bad)
    with pytest.raises(InputError, match=f"The {where} holds NaN or infinite numbers in epoch 2, iteration 6"):
        trainer.run()
    good, good_student, good_auxiliary, _ = make(5)
    good.run()
    assert equal(weights(student), weights(good_student))
    assert equal(weights(auxiliary), weights(good_auxiliary))


def test_the_checkpoint_stays_that_of_the_last_good_epoch(tmp_path):
    network = net()
    trainer = trainer_of(network, batches(), epochs=3)
    plant(trainer, "gradient", (7,), float("nan"))
    with pytest.raises(InputError):
        Checkpoints(tmp_path, {"network": network}).run(trainer)
    good = net()
    trainer_of(good, batches(), epochs=1).run()
    assert equal(torch.load(tmp_path / "last.pt", weights_only=True)["network"], weights(good))


@BAD
@pytest.mark.parametrize("where", ["input", "loss", "gradient"])
def test_skipping_trains_as_if_the_batch_were_not_there(where, bad, caplog):
    network, data = net(), batches(4)
    trainer = trainer_of(network, spoiled(data, 1, bad) if where == "input" else data, on_bad_number="skip")
    if where != "input":
        plant(trainer, where, (2,), bad)
    with caplog.at_level(logging.WARNING):
        trainer.run()
    assert trainer.skipped == 1 and f"epoch 1, iteration 2 (1 so far): bad {where}" in caplog.text
    without = net()
    trainer_of(without, [data[0], data[2], data[3]]).run()
    assert equal(weights(network), weights(without))


@pytest.mark.parametrize("place", [0, 1])
def test_of_accumulated_batches_the_good_one_still_makes_its_step(place):
    network, data = net(), batches(2)
    sgd = torch.optim.SGD(network.parameters(), 0.1)
    trainer = trainer_of(
        network, spoiled(data, place, float("nan")), optimizer=sgd, accumulation_steps=2, on_bad_number="skip"
    )
    trainer.run()
    alone = net()
    # half the learning rate: an accumulated loss is divided by the number of batches
    trainer_of(alone, [data[1 - place]], optimizer=torch.optim.SGD(alone.parameters(), 0.05)).run()
    for name, tensor in weights(alone).items():
        assert torch.allclose(network.state_dict()[name], tensor, atol=1e-6), name


def test_a_bad_gradient_takes_the_batches_of_its_step_with_it():
    network = net()
    before = weights(network)
    trainer = trainer_of(network, batches(2), accumulation_steps=2, on_bad_number="skip")
    plant(trainer, "gradient", (2,), float("inf"))
    trainer.run()
    parameters = dict(network.named_parameters())
    assert trainer.skipped == 1 and all(torch.equal(before[name], value) for name, value in parameters.items())


def test_a_whole_epoch_of_bad_batches_ends_the_training_although_they_are_skipped():
    trainer = trainer_of(net(), batches(4), epochs=3, on_bad_number="skip")
    plant(trainer, "loss", (3, 4, 5, 6), float("nan"))
    with pytest.raises(InputError, match="epoch 2, iteration 6, as in 4 batches one after the other"):
        trainer.run()


def test_nothing_is_looked_at_on_request_and_other_words_are_refused():
    network = net()
    trainer_of(network, spoiled(batches(), 1, float("nan")), on_bad_number="ignore").run()
    assert not is_finite(network.parameters())
    with pytest.raises(InputError, match="on_bad_number is 'warn'; use one of stop, skip, ignore"):
        trainer_of(net(), batches(), on_bad_number="warn")


def test_the_files_are_named_that_have_the_bad_numbers():
    image = torch.zeros(3, 1, 2, 2)
    image[1, 0, 0, 0] = float("nan")
    meta = MetaTensor(image, meta={"filename_or_obj": ["a.png", "b.png", "c.png"]})
    assert files_of({"image": meta}, image) == ["b.png"]
    assert files_of({"image": meta}, torch.zeros(3, 1, 2, 2)) == ["a.png", "b.png", "c.png"]
    assert files_of({"image": image}, image) == files_of([image], image) == []


def test_files_of_plain_images_are_found_in_the_data_set():
    records = [{"image": f"{number}.png", "label": 0} for number in range(6)]
    dataset = CacheDataset(
        records, lambda record: {"image": torch.full((1, 4, 4), float(record["image"][0])), "label": 0}, progress=False
    )
    loader = DataLoader(dataset, batch_size=3)

    class Augment:
        def __call__(self, batchdata, device, non_blocking, **kwargs):
            image = batchdata["image"] / (batchdata["image"] - 4.0)  # the fifth image becomes infinite
            return image, batchdata["label"]

    trainer = trainer_of(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), loader, prepare_batch=Augment())
    with pytest.raises(InputError, match=r"The input .* epoch 1, iteration 2 \(files: 4.png\)"):
        trainer.run()


def test_the_norm_is_that_of_all_gradients_and_goes_to_the_curves():
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    optimizers = [torch.optim.SGD([a], 1.0), torch.optim.SGD([b, nn.Parameter(torch.zeros(1))], 1.0)]
    norm = gradient_norm(optimizers)
    assert norm.item() == 5.0
    assert tensorboard_scalars({"loss": torch.tensor(0.5), "gradient_norm": norm}) == {
        "train_loss": 0.5,
        "gradient_norm": 5.0,
    }
    assert tensorboard_scalars({"loss": torch.tensor(0.5)}) == {"train_loss": 0.5}


def test_buffers_come_back_as_they_were():
    network = nn.BatchNorm2d(2)
    buffers = Buffers([network, None])
    before = weights(network)
    network(torch.randn(3, 2, 4, 4))
    assert not equal(weights(network), before)
    buffers.restore()
    assert equal(weights(network), before)


def test_whole_numbers_are_always_finite():
    assert is_finite([torch.arange(3), None]) and is_finite([])
    assert not is_finite([torch.zeros(2), torch.tensor(float("inf"))])
