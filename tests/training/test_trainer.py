# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn

from dual_skd.errors import InputError
from dual_skd.training.ema import momentum_at
from dual_skd.training.evaluator import DualModelEvaluator
from dual_skd.training.label_free import LabelFreeHeads, LabelFreeTask
from dual_skd.training.losses import SelfDistillationLoss, view_loss
from dual_skd.training.schedule import Schedule
from dual_skd.training.task import DualModelTask
from dual_skd.training.trainer import DualModelTrainer

torch.set_num_threads(1)
CLASSES = 3


def net(seed: int = 0, dropout: float = 0.0, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(width, CLASSES),
    )


def batches(count: int, size: int = 6, seed: int = 1) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.randn(size, 1, 9, 9, generator=generator),
            "label": torch.randint(CLASSES, (size,), generator=generator),
        }
        for _ in range(count)
    ]


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def dual(student: nn.Module, *, data=None, epochs: int = 1, lr: float = 0.1, cls=DualModelTrainer, **options):
    """A trainer of a DualModelTask; with ``heads`` it has label-free epochs."""
    loss_function, heads = options.pop("loss_function", nn.CrossEntropyLoss()), options.pop("heads", None)
    names = ("auxiliary", "update", "distillation", "schedule", "auxiliary_optimizer")
    method = {"schedule": Schedule(epochs)} | {name: options.pop(name) for name in names if name in options}
    if cls is SupervisedTrainer:
        learns = {"network": student, "loss_function": loss_function}
    else:
        task = DualModelTask(student, loss_function, **method)
        learns = {"task": LabelFreeTask(task, heads) if heads else task}
    return cls(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=batches(4) if data is None else data,
        optimizer=options.pop("optimizer", None) or torch.optim.SGD(student.parameters(), lr=lr, momentum=0.9),
        decollate=options.pop("decollate", False),
        **learns,
        **options,
    )


class Log:
    """Keeps what every iteration put out."""

    def __init__(self, trainer) -> None:
        self.rows: list[dict] = []
        trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda e: self.rows.append(dict(e.state.output)))

    def __getitem__(self, key: str) -> list:
        return [float(torch.as_tensor(row[key]).detach()) for row in self.rows]


def run_and_log(trainer) -> Log:
    log = Log(trainer)
    torch.manual_seed(7)
    trainer.run()
    return log


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("as_meta", [False, True])
def test_without_auxiliary_it_is_the_supervised_trainer_bit_for_bit_for_20_steps(accumulation_steps, as_meta):
    data = batches(10)
    if as_meta:
        data = [{**batch, "image": MetaTensor(batch["image"])} for batch in data]
    runs = []
    for cls in (SupervisedTrainer, DualModelTrainer):
        student = net(dropout=0.3)
        trainer = dual(student, data=data, epochs=2, cls=cls, accumulation_steps=accumulation_steps)
        runs.append((run_and_log(trainer)["loss"], weights(student)))
    assert len(runs[0][0]) == 20
    assert runs[0][0] == runs[1][0]
    assert equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("update", ["ema", "frozen"])
def test_an_auxiliary_of_weight_0_changes_nothing_for_the_student(update):
    alone, watched = net(dropout=0.3), net(dropout=0.3)
    plain = run_and_log(dual(alone, epochs=5))["loss"]
    schedule = Schedule(epochs=5, skd_weight=0.0)
    trainer = dual(watched, epochs=5, auxiliary=net(seed=5, dropout=0.3), update=update, schedule=schedule)
    assert run_and_log(trainer)["loss"] == plain
    assert equal(weights(alone), weights(watched))


def test_an_empty_batch_is_refused_as_monai_refuses_it():
    trainer = dual(net(), data=[None])
    with pytest.raises(ValueError, match="Must provide batch data"):
        trainer.run()


def test_the_loss_is_the_label_loss_plus_the_weighted_distillation():
    student, auxiliary = net(0), net(1)
    image, label = batches(1)[0].values()
    z_student, z_auxiliary = copy.deepcopy(student)(image), copy.deepcopy(auxiliary)(image)
    label_loss = nn.functional.cross_entropy(z_student, label)
    p, q = (z_auxiliary / 3).softmax(1), (z_student / 3).softmax(1)
    skd_loss = 9 * (p * (p / q).log()).sum(1).mean()

    schedule = Schedule(epochs=1, skd_weight=0.7, ramp_up=0.0)
    trainer = dual(
        student, data=batches(1), auxiliary=auxiliary, schedule=schedule, distillation=SelfDistillationLoss(3.0)
    )
    log = run_and_log(trainer)
    assert log["loss_label"][0] == pytest.approx(label_loss.item(), rel=1e-5)
    assert log["loss_skd"][0] == pytest.approx(skd_loss.item(), rel=1e-4)
    assert log["loss"][0] == pytest.approx((label_loss + 0.7 * skd_loss).item(), rel=1e-5)
    assert log["skd_weight"] == pytest.approx([0.7])
    assert torch.allclose(log.rows[0]["auxiliary_pred"], z_auxiliary)


def test_no_gradient_reaches_the_ema_auxiliary():
    auxiliary = net(1)
    run_and_log(dual(net(0), auxiliary=auxiliary, schedule=Schedule(epochs=1, ramp_up=0.0)))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in auxiliary.parameters())


@pytest.mark.parametrize("warmup", [False, True])
def test_the_ema_equals_its_closed_form(warmup):
    student, auxiliary = net(0), net(1)
    start = weights(auxiliary)
    trainer = dual(
        student, auxiliary=auxiliary, epochs=2, schedule=Schedule(epochs=2, momentum=0.8, momentum_warmup=warmup)
    )
    path: list[dict] = []
    trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda _: path.append(weights(student)))
    trainer.run()

    momenta = [momentum_at(k, 0.8, warmup) for k in range(8)]
    for name, _ in auxiliary.named_parameters():
        share, expected = 1.0, torch.zeros_like(start[name])
        for momentum, step in reversed(list(zip(momenta, path, strict=True))):
            expected += share * (1 - momentum) * step[name]
            share *= momentum
        expected += share * start[name]
        assert torch.allclose(auxiliary.state_dict()[name], expected, atol=1e-6)


def test_the_auxiliary_gathers_its_own_batch_statistics_while_it_teaches():
    student, auxiliary = net(0), net(1)
    image = batches(1)[0]["image"]
    mean = copy.deepcopy(auxiliary)[0](image).mean((0, 2, 3))
    run_and_log(dual(student, data=batches(1), auxiliary=auxiliary, schedule=Schedule(epochs=1, ramp_up=0.0)))
    assert torch.allclose(auxiliary[1].running_mean, 0.1 * mean, atol=1e-6)
    assert int(auxiliary[1].num_batches_tracked) == 1


def test_statistics_follow_the_student_while_the_auxiliary_does_not_teach():
    student, auxiliary = net(0), net(1)
    run_and_log(dual(student, data=batches(1), auxiliary=auxiliary, schedule=Schedule(1, skd_weight=0.0)))
    # first warmed-up momentum is 0.1, and the auxiliary's own mean was 0
    assert torch.allclose(auxiliary[1].running_mean, 0.9 * student[1].running_mean)
    assert int(auxiliary[1].num_batches_tracked) == 1


def test_the_teacher_predicts_without_dropout_and_leaves_the_random_stream_alone():
    plain, taught = net(0, dropout=0.5), net(0, dropout=0.5)
    first = run_and_log(dual(plain, data=batches(1)))["loss_label"]
    options = {"auxiliary": net(1, dropout=0.5), "schedule": Schedule(1, ramp_up=0.0)}
    assert run_and_log(dual(taught, data=batches(1), **options))["loss_label"] == first


@pytest.mark.parametrize("update", ["ema", "mutual", "frozen", "none"])
def test_the_same_seed_gives_equal_weights(update):
    finals = []
    for _ in range(2):
        student, auxiliary = net(0, dropout=0.2), net(1, dropout=0.2)
        options = {"auxiliary": auxiliary, "update": update}
        if update == "mutual":
            options["auxiliary_optimizer"] = torch.optim.SGD(auxiliary.parameters(), lr=0.1)
        run_and_log(dual(student, epochs=2, schedule=Schedule(2, fine_tune_epochs=1), **options))
        finals.append((weights(student), weights(auxiliary)))
    assert equal(finals[0][0], finals[1][0]) and equal(finals[0][1], finals[1][1])


def test_a_frozen_teacher_of_another_width_keeps_every_tensor():
    teacher = net(1, width=9)
    before = weights(teacher)
    log = run_and_log(dual(net(0), auxiliary=teacher, update="frozen", schedule=Schedule(1, ramp_up=0.0)))
    assert equal(weights(teacher), before)
    assert all(value > 0 for value in log["loss_skd"])
    assert log["momentum"] == [1.0] * 4


def test_mutual_learning_trains_both_on_labels_and_on_each_other():
    student, auxiliary = net(0), net(1)
    image, label = batches(1)[0].values()
    copies = copy.deepcopy(student), copy.deepcopy(auxiliary)
    z_student, z_auxiliary = copies[0](image), copies[1](image)
    distil, label_loss = SelfDistillationLoss(2.0), nn.CrossEntropyLoss()
    loss_student = label_loss(z_student, label) + distil(z_student, z_auxiliary)
    loss_auxiliary = label_loss(z_auxiliary, label) + distil(z_auxiliary, z_student)
    loss_student.backward()
    loss_auxiliary.backward()

    trainer = dual(
        student,
        data=batches(1),
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        auxiliary=auxiliary,
        auxiliary_optimizer=torch.optim.SGD(auxiliary.parameters(), lr=0.1),
        update="mutual",
        schedule=Schedule(1, ramp_up=0.0),
    )
    log = run_and_log(trainer)
    assert log["loss"][0] == pytest.approx((loss_student + loss_auxiliary).item(), rel=1e-5)
    assert log["loss_auxiliary"][0] == pytest.approx(loss_auxiliary.item(), rel=1e-5)
    for start, network in zip(copies, (student, auxiliary), strict=True):
        for expected, found in zip(start.parameters(), network.parameters(), strict=True):
            assert torch.allclose(expected - 0.1 * expected.grad, found, atol=1e-6)


def test_the_auxiliary_is_not_asked_while_its_weight_is_0():
    auxiliary = net(1)
    calls: list[int] = []
    auxiliary.register_forward_hook(lambda *_: calls.append(1))
    schedule = Schedule(3, fine_tune_epochs=1, ramp_up=0.5)
    log = run_and_log(dual(net(0), epochs=3, auxiliary=auxiliary, schedule=schedule))
    # 8 skd steps of which 4 ramp up from 0, 4 fine-tuning steps ramping down to 0
    assert log["skd_weight"] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])
    assert len(calls) == 10
    assert ["auxiliary_pred" in row for row in log.rows] == [weight > 0 for weight in log["skd_weight"]]


def test_accumulated_batches_make_one_step_and_one_ema_update():
    student, auxiliary = net(0), net(1)
    trainer = dual(
        student, data=batches(5), auxiliary=auxiliary, schedule=Schedule(1, momentum=0.5), accumulation_steps=2
    )
    before, changed = [weights(student), weights(auxiliary)], []

    def compare(_) -> None:
        now = [weights(student), weights(auxiliary)]
        changed.append([not torch.equal(now[i]["6.weight"], before[i]["6.weight"]) for i in range(2)])
        before[:] = now

    trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, compare)
    trainer.run()
    assert changed == [[False, False], [True, True], [False, False], [True, True], [True, True]]  # the last is a flush


def test_events_fire_in_the_order_of_the_supervised_trainer():
    def order(cls, **options) -> list[str]:
        trainer, seen = dual(net(0), data=batches(2), cls=cls, **options), []
        for event in IterationEvents:
            trainer.add_event_handler(event, lambda _, name=event.name: seen.append(name))
        trainer.run()
        return seen

    expected = order(SupervisedTrainer)
    assert len(expected) == 8
    assert order(DualModelTrainer) == expected
    assert order(DualModelTrainer, auxiliary=net(1), schedule=Schedule(1, ramp_up=0.0)) == expected


def test_a_handler_may_change_the_loss_before_the_backward_pass():
    student = net(0)
    before = weights(student)
    trainer = dual(student, data=batches(1))
    trainer.add_event_handler(
        IterationEvents.LOSS_COMPLETED, lambda e: e.state.output.update(loss=e.state.output["loss"] * 0)
    )
    trainer.run()
    assert all(torch.equal(parameter, before[name]) for name, parameter in student.named_parameters())


def test_outputs_survive_decollation():
    trainer = dual(net(0), auxiliary=net(1), decollate=True, schedule=Schedule(1, ramp_up=0.0))
    trainer.run()
    assert len(trainer.state.output) == 6
    assert trainer.state.output[0]["auxiliary_pred"].shape == (CLASSES,)
    assert float(trainer.state.output[5]["skd_weight"]) == 1.0


def test_the_image_keeps_its_meta_data():
    (batch,) = batches(1)
    batch["image"] = MetaTensor(batch["image"], meta={"origin": "scan"})
    log = run_and_log(dual(net(0), data=[batch]))
    assert log.rows[0]["image"].meta["origin"] == "scan"
    assert type(log.rows[0]["pred"]) is torch.Tensor


@pytest.mark.parametrize("update", ["ema", "mutual", "none"])
def test_bfloat16_on_cpu_trains_close_to_float32(update):
    losses = []
    for amp in (False, True):
        student, auxiliary = net(0), net(1)
        options = {"auxiliary": auxiliary, "update": update}
        if update == "mutual":
            options["auxiliary_optimizer"] = torch.optim.SGD(auxiliary.parameters(), lr=0.1)
        trainer = dual(student, amp=amp, amp_kwargs={"dtype": torch.bfloat16} if amp else None, **options)
        log = run_and_log(trainer)
        assert trainer.scaler is None
        assert log.rows[-1]["pred"].dtype == (torch.bfloat16 if amp else torch.float32)
        losses.append(log["loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)


def test_training_goes_on_after_a_resume_as_if_it_had_never_stopped():
    def make(epochs_done: int = 0):
        student, auxiliary = net(0), net(1)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
        schedule = Schedule(4, fine_tune_epochs=1)
        trainer = dual(student, epochs=4, optimizer=optimizer, auxiliary=auxiliary, schedule=schedule)
        trainer.state.epoch, trainer.state.iteration = epochs_done, 4 * epochs_done
        return trainer, student, auxiliary, optimizer

    whole = make()
    saved = {}

    def save(engine) -> None:
        if engine.state.epoch == 2:
            saved.update({i: copy.deepcopy(part.state_dict()) for i, part in enumerate(whole[1:])})

    whole[0].add_event_handler(Events.EPOCH_COMPLETED, save)
    whole[0].run()
    resumed = make(epochs_done=2)
    for i, part in enumerate(resumed[1:]):
        part.load_state_dict(saved[i])
    resumed[0].run()
    assert resumed[0].state.iteration == 16
    assert equal(weights(whole[1]), weights(resumed[1])) and equal(weights(whole[2]), weights(resumed[2]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"update": "emma"}, "ema, mutual, frozen, none"),
        ({"update": "ema", "auxiliary": None}, "needs an auxiliary"),
        ({"update": "mutual"}, "auxiliary_optimizer"),
        ({"auxiliary": net(1, width=5)}, "0.weight (5, 1, 3, 3) in the auxiliary where the student has 0.weight (4, 1"),
        ({"schedule": Schedule(9)}, "9 epochs and the trainer for 1"),
        ({"schedule": None}, "needs a schedule"),
        ({"schedule": Schedule(1, label_free_epochs=1)}, "LabelFreeTask"),
        ({"schedule": Schedule(1, label_free_epochs=1), "heads": LabelFreeHeads(4)}, "optimizer doesn't"),
        ({"update": "frozen", "heads": LabelFreeHeads(4)}, "label-free epochs need update 'ema', found 'frozen'"),
        ({"data": (batch for batch in batches(2))}, "epoch_length"),
    ],
)
def test_arguments_that_do_not_fit_are_told_in_one_sentence(options, words):
    with pytest.raises(InputError) as error:
        dual(net(0), **{"auxiliary": net(1), **options})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_evaluator_predicts_with_both_networks_in_eval_mode():
    student, auxiliary = net(0, dropout=0.5), net(1, dropout=0.5)
    student.train()
    data = batches(1)
    evaluator = DualModelEvaluator(
        device="cpu", val_data_loader=data, network=student, auxiliary=auxiliary, decollate=False
    )
    evaluator.run()
    output = evaluator.state.output
    assert student.training
    for key, network in (("pred", student), ("auxiliary_pred", auxiliary)):
        assert torch.equal(output[key], network.eval()(data[0]["image"]))
        assert not output[key].requires_grad


def test_the_evaluator_without_auxiliary_is_the_supervised_one_and_takes_bfloat16_on_cpu():
    student, data = net(0), batches(1)
    evaluator = DualModelEvaluator(
        device="cpu", val_data_loader=data, network=student, amp=True, amp_kwargs={"dtype": torch.bfloat16}
    )
    evaluator.run()
    assert "auxiliary_pred" not in evaluator.state.output[0]
    pred = torch.stack([item["pred"] for item in evaluator.state.output])
    assert pred.dtype == torch.float32
    assert torch.allclose(pred, student.eval()(data[0]["image"]), atol=0.02)


class TwoViews:
    """A ``prepare_batch`` that gives another noisy view on every call."""

    def __init__(self) -> None:
        self.views: list[torch.Tensor] = []

    def __call__(self, batch, device=None, non_blocking=False, **_):
        self.views.append(batch["image"] + 0.1 * torch.randn_like(batch["image"]))
        return self.views[-1], batch["label"]


def label_free(student, auxiliary, epochs: int = 1, data=None, **options):
    torch.manual_seed(3)
    heads = LabelFreeHeads(4, 16, 8)
    optimizer = torch.optim.SGD([*student.parameters(), *heads.parameters()], lr=0.1, weight_decay=0.1)
    options.setdefault("schedule", Schedule(epochs, label_free_epochs=epochs))
    trainer = dual(student, data=data, epochs=epochs, optimizer=optimizer, auxiliary=auxiliary, heads=heads, **options)
    return trainer, heads


def test_both_views_are_made_in_full_precision():
    autocast = []

    def prepare(batch, device, non_blocking, **kwargs):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return batch["image"], batch["label"]

    trainer, _ = label_free(net(0), net(1), data=batches(1), prepare_batch=prepare, amp=True)
    trainer.run()
    assert autocast == [False, False]


def test_the_label_free_stage_compares_the_features_of_two_views():
    student, auxiliary, prepare = net(0), net(1), TwoViews()
    trainer, heads = label_free(student, auxiliary, data=batches(1), prepare_batch=prepare)
    copies = copy.deepcopy((heads, student[:5], auxiliary[:5]))
    log = run_and_log(trainer)
    assert len(prepare.views) == 2 and not torch.equal(*prepare.views)
    copied, f_s, f_a = copies
    predictions = [copied.predictor(copied.projector(f_s(view))) for view in prepare.views]
    targets = [copied.auxiliary_projector(f_a(view)) for view in prepare.views]
    expected = view_loss(predictions[0], targets[1], predictions[1], targets[0])
    assert log["loss"][0] == log["loss_skd"][0] == pytest.approx(expected.item(), rel=1e-5)
    assert log["loss_label"] == [0.0] and log["skd_weight"] == [0.0]


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_the_label_free_stage_moves_features_and_heads_but_not_the_classifier(accumulation_steps):
    student, auxiliary = net(0), net(1)
    trainer, heads = label_free(student, auxiliary, accumulation_steps=accumulation_steps)
    before = weights(nn.ModuleList([student, heads]))
    run_and_log(trainer)
    after = weights(nn.ModuleList([student, heads]))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"0.0.weight", "1.projector.0.weight", "1.predictor.0.weight", "1.auxiliary_projector.0.weight"} <= moved
    assert not moved & {"0.6.weight", "0.6.bias"}
    assert all(parameter.grad is None for parameter in auxiliary.parameters())


def test_views_come_to_agree():
    data = batches(4, size=24)  # few images make batch statistics, and so the loss, a matter of chance
    trainer, _ = label_free(net(0), net(1), epochs=10, data=data, prepare_batch=TwoViews())
    losses = run_and_log(trainer)["loss"]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_the_three_stages_follow_each_other_in_one_run():
    student, auxiliary = net(0), net(1)
    schedule = Schedule(3, label_free_epochs=1, fine_tune_epochs=1, ramp_up=0.0)
    trainer, _ = label_free(student, auxiliary, epochs=3, schedule=schedule, prepare_batch=TwoViews())
    log = run_and_log(trainer)
    assert [value > 0 for value in log["loss_label"]] == [False] * 4 + [True] * 8
    assert log["skd_weight"] == [0.0] * 4 + [1.0] * 4 + [0.75, 0.5, 0.25, 0.0]


def test_compiled_networks_train_as_uncompiled_ones():
    finals = []
    for options in ({}, {"compile": True, "compile_kwargs": {"backend": "eager"}}):
        student, auxiliary = net(0), net(1)
        run_and_log(dual(student, auxiliary=auxiliary, schedule=Schedule(1, ramp_up=0.0), **options))
        finals.append([weights(student), weights(auxiliary)])
    for eager, compiled in zip(*finals, strict=True):
        assert all(torch.allclose(eager[name], compiled[name], atol=1e-6) for name in eager)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("update", ["ema", "mutual"])
def test_mixed_precision_on_a_gpu_scales_gradients_only_in_float16(dtype, update):
    student, auxiliary = net(0).cuda(), net(1).cuda()
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (student, auxiliary)]
    schedule, auxiliary_optimizer = Schedule(1), optimizers[1] if update == "mutual" else None
    trainer = DualModelTrainer(
        device="cuda",
        max_epochs=1,
        train_data_loader=batches(4),
        optimizer=optimizers[0],
        task=DualModelTask(
            student,
            nn.CrossEntropyLoss(),
            auxiliary,
            update=update,
            schedule=schedule,
            auxiliary_optimizer=auxiliary_optimizer,
        ),
        amp=True,
        amp_kwargs={"dtype": dtype},
        decollate=False,
    )
    before = weights(student)
    assert all(torch.isfinite(torch.tensor(run_and_log(trainer)["loss"])))
    assert (trainer.scaler is not None) == (dtype == torch.float16)
    assert not equal(before, weights(student))


def test_a_single_image_of_one_pixel_cannot_be_normalised():
    shrunk = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    data = [{"image": torch.randn(1, 1, 8, 8), "label": torch.zeros(1, dtype=torch.long)}]
    with pytest.raises(InputError, match="raise batch_size or image_size"):
        dual(shrunk, data=data).run()
