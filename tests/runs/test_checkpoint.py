# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import gc
import hashlib
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from full_disk import fill_disk, needs_full
from ignite.engine import Events
from monai.data import DataLoader
from monai.utils import set_determinism
from torch import nn
from torch.utils.data import RandomSampler
from torch.utils.tensorboard import SummaryWriter

from dual_skd.data import AugmentBatch, BatchAugment
from dual_skd.errors import InputError
from dual_skd.runs.checkpoint import NEWEST, PREVIOUS, Checkpoints, find_checkpoint, write_checkpoint
from dual_skd.runs.random_state import ResumableSampler, random_state, set_random_state
from dual_skd.runs.signals import StopSignals
from dual_skd.training.label_free import LabelFreeHeads, LabelFreeTask
from dual_skd.training.schedule import Schedule
from dual_skd.training.task import DualModelTask
from dual_skd.training.trainer import DualModelTrainer
from dual_skd.utils.tensor_files import read_tensors

SETTINGS = {"epochs": 3, "seed": 0, "num_workers": 2}
PER_EPOCH = 5
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="forks this process")


class Killed(BaseException):
    """Ends a run without a word, as kill -9 does, but leaves the process of the test alive."""


class Images(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 2 * PER_EPOCH + 1

    def __getitem__(self, place: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(place)
        return {"image": torch.randn(1, 9, 9, generator=generator), "label": place % 3, "place": place}


def draw_numbers() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(4, 3),
    )  # fmt: skip


class Run:
    """One process's part of a run of three stages, an epoch each: label-free, self-distillation, fine-tuning."""

    def __init__(
        self, folder: Path, *, workers: int = 0, minutes: float = 0.0, accumulation: int = 1, epochs: int = 3,
        writer: Any = None,
    ) -> None:  # fmt: skip
        set_determinism(0)
        self.seen: list[list[int]] = []
        found = find_checkpoint(folder, settings=SETTINGS, data_hash="a")
        student, auxiliary, heads = network(), network(), LabelFreeHeads(4, 8, 4)
        optimizer = torch.optim.AdamW([*student.parameters(), *heads.parameters()], lr=0.01)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        data = Images()
        loader = DataLoader(data, batch_size=2, sampler=ResumableSampler(RandomSampler(data)), drop_last=True,
                            num_workers=workers, persistent_workers=workers > 0,
                            generator=torch.Generator())  # fmt: skip
        schedule = Schedule(epochs, label_free_epochs=1, fine_tune_epochs=1)
        task = DualModelTask(student, nn.CrossEntropyLoss(), auxiliary, schedule=schedule)
        self.trainer = DualModelTrainer(
            device="cpu", max_epochs=epochs, train_data_loader=loader, optimizer=optimizer,
            task=LabelFreeTask(task, heads), decollate=False, accumulation_steps=accumulation,
            optim_set_to_none=True, prepare_batch=AugmentBatch(BatchAugment(2, rotate=10.0, noise=0.1)),
        )  # fmt: skip
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: scheduler.step())
        self.trainer.add_event_handler(Events.ITERATION_STARTED, self._note)
        # stands for a validation, which draws random numbers too
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, draw_numbers)
        self.objects = {"network": student, "auxiliary": auxiliary, "optimizer": optimizer, "scheduler": scheduler,
                        "heads": heads, "nothing": None}  # fmt: skip
        self.checkpoints = Checkpoints(
            folder, self.objects, settings=SETTINGS, data_hash="a", found=found, minutes=minutes, writer=writer
        )

    def _note(self, trainer: DualModelTrainer) -> None:
        self.seen.append(trainer.state.batch["place"].tolist())

    def at(self, iteration: int, what, event=Events.ITERATION_STARTED) -> Run:
        """Calls ``what`` in that iteration."""
        self.trainer.add_event_handler(event(once=iteration), what)
        return self

    def go(self) -> Run:
        set_determinism(0)
        self.checkpoints.run(self.trainer)
        return self

    def digest(self) -> str:
        """Of everything that training changes, the random generators included."""
        states = {name: item.state_dict() for name, item in self.objects.items() if item is not None}
        return digest([states, self.trainer.state_dict(), random_state()])


def digest(content: Any) -> str:
    found = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            found.update(repr((item.dtype, item.shape)).encode() + item.numpy().tobytes())
        elif isinstance(item, dict):
            for key in item:
                add([key, item[key]])
        elif isinstance(item, list | tuple):
            for each in item:
                add(each)
        else:
            found.update(repr(item).encode())

    add(content)
    return found.hexdigest()


def kill(*_: Any) -> None:
    raise Killed


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """No test here cuts the power, and waiting takes most of their time."""
    monkeypatch.setattr("dual_skd.utils.files.os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("whole")).go()


# --- exact resume -----------------------------------------------------------------------------------------------------


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, whole):
    assert len(whole.seen) == 3 * PER_EPOCH
    for iteration in (1, 2, 5, 6, 9, 11, 15):
        folder = tmp_path / str(iteration)
        with pytest.raises(Killed):
            Run(folder).at(iteration, kill).go()
        rest = Run(folder).go()
        assert rest.digest() == whole.digest(), iteration
        assert rest.seen == whole.seen[iteration - 1 :]  # the same images in the same order, none twice


def test_a_run_killed_again_and_again_ends_the_same_too(tmp_path, whole):
    for iteration in range(1, 3 * PER_EPOCH + 1):
        with pytest.raises(Killed):
            Run(tmp_path).at(iteration, kill, Events.ITERATION_COMPLETED).go()
    assert Run(tmp_path).go().digest() == whole.digest()


def test_without_checkpoints_within_an_epoch_it_goes_on_from_the_epochs_start(tmp_path, whole):
    with pytest.raises(Killed):
        Run(tmp_path, minutes=60).at(9, kill).go()
    rest = Run(tmp_path, minutes=60).go()
    assert rest.digest() == whole.digest() and len(rest.seen) == 2 * PER_EPOCH


@pytest.mark.parametrize("iteration", [3, 11])
def test_loader_processes_change_nothing(tmp_path, whole, iteration):
    with pytest.raises(Killed):
        Run(tmp_path, workers=2).at(iteration, kill).go()
    rest = Run(tmp_path, workers=1).go()
    assert rest.digest() == whole.digest() and rest.seen == whole.seen[iteration - 1 :]


def test_accumulated_gradients_are_not_lost(tmp_path):
    whole = Run(tmp_path / "whole", accumulation=3).go()
    for iteration in (5, 9):
        with pytest.raises(Killed):
            Run(tmp_path / str(iteration), accumulation=3).at(iteration, kill).go()
        assert Run(tmp_path / str(iteration), accumulation=3).go().digest() == whole.digest()


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGINT, ("INFO", "Stopped by Ctrl-C")), (signal.SIGTERM, ("WARNING", "Stopped by SIGTERM"))],
)
@pytest.mark.parametrize("iteration", [2, 5, 9, 15])
def test_a_signal_lets_the_iteration_finish_and_says_how_to_go_on(
    tmp_path, whole, number, said, iteration, caplog, capfd
):
    caplog.set_level(logging.INFO, logger="dual_skd")
    before, (level, words) = signal.getsignal(number), said
    stopped = Run(tmp_path, minutes=60).at(iteration, lambda: signal.raise_signal(number))
    with pytest.raises(SystemExit) as caught:
        stopped.go()
    assert caught.value.code == 128 + number and signal.getsignal(number) is before
    last = caplog.records[-1]
    assert last.levelname == level
    assert last.getMessage() == f"{words}; the same command goes on from {tmp_path / NEWEST}."
    assert "Once more ends it at once" in capfd.readouterr().err
    assert len(stopped.seen) == iteration
    rest = Run(tmp_path, minutes=60).go()
    assert rest.digest() == whole.digest() and rest.seen == whole.seen[iteration:]


def test_a_second_interrupt_ends_at_once(tmp_path):
    stopped = Run(tmp_path, minutes=60)
    for _ in range(2):
        stopped.at(3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stopped.go()
    assert not (tmp_path / NEWEST).exists()


def test_a_sigterm_that_comes_by_two_ways_is_one(tmp_path, whole):
    stopped = Run(tmp_path, minutes=60)
    for _ in range(2):
        stopped.at(3, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        stopped.go()
    assert caught.value.code == 143 and len(stopped.seen) == 3
    assert Run(tmp_path, minutes=60).go().digest() == whole.digest()


def test_a_signal_that_ends_the_loaders_processes_too_loses_no_more_than_the_last_minutes(tmp_path, whole, caplog):
    def everywhere() -> None:  # what a cluster's scheduler does
        signal.raise_signal(signal.SIGTERM)
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGTERM)
            process.join()

    with pytest.raises(SystemExit) as caught:
        Run(tmp_path, workers=2).at(8, everywhere).go()
    assert caught.value.code == 143 and f"goes on from {tmp_path / NEWEST}" in caplog.text
    assert Run(tmp_path, workers=2).go().digest() == whole.digest()


def fail(error: Exception, number: int | None = None):
    """An error in the midst of training, right after a signal where there is one."""

    def what() -> None:
        if number is not None:
            signal.raise_signal(number)
        raise error

    return what


@pytest.mark.parametrize("error", [RuntimeError("shapes don't match"), FileNotFoundError(2, "no such image")])
def test_errors_of_training_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        Run(tmp_path).at(3, fail(error)).go()
    assert caught.value is error


def test_an_error_after_a_signal_is_said_and_the_signal_counts(tmp_path, whole, caplog):
    lost = fail(RuntimeError("DataLoader worker (pid 7) is killed"), signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        Run(tmp_path).at(3, lost).go()
    assert caught.value.code == 143 and "worker (pid 7) is killed" in caplog.text
    assert f"goes on from {tmp_path / NEWEST}" in caplog.text
    assert Run(tmp_path).go().digest() == whole.digest()


def test_of_several_processes_the_first_one_writes(tmp_path):
    second = Run(tmp_path)
    second.trainer.state.rank = 1
    second.go()
    assert list(tmp_path.iterdir()) == []


def test_a_sampler_that_cannot_begin_in_the_midst_is_saved_at_the_end_of_epochs_only(tmp_path):
    run = Run(tmp_path)
    run.trainer.data_loader = DataLoader(Images(), batch_size=2, drop_last=True, shuffle=True)
    with pytest.raises(Killed):
        run.at(8, kill).go()
    assert read_tensors(tmp_path / NEWEST)["trainer"]["iteration"] == PER_EPOCH


def test_a_run_that_early_stopping_ended_does_not_train_on(tmp_path):
    run = Run(tmp_path)
    run.at(1, lambda: run.trainer.terminate(), Events.EPOCH_COMPLETED)
    with pytest.raises(Killed):
        run.at(1, kill, Events.COMPLETED).go()  # before run.json could say that it is finished
    rest = Run(tmp_path)
    completed = []
    rest.trainer.add_event_handler(Events.COMPLETED, lambda: completed.append(rest.trainer.state.epoch))
    rest.go()
    assert completed == [1] and rest.seen == []


# --- which checkpoint, or none ----------------------------------------------------------------------------------------


def find(folder: Path, **changed: Any):
    arguments = {"settings": SETTINGS, "data_hash": "a"} | changed
    return find_checkpoint(folder, **arguments)


@pytest.fixture
def stopped(tmp_path) -> Path:
    """A run stopped in its second epoch."""
    with pytest.raises(Killed):
        Run(tmp_path).at(8, kill).go()
    return tmp_path


def test_a_folder_without_a_run_starts_one(tmp_path):
    assert find(tmp_path / "absent") is None
    (tmp_path / "run.json").write_text('{"finished": null}')  # killed before the first checkpoint
    assert find(tmp_path) is None


def test_it_is_said_where_a_run_goes_on(stopped, caplog):
    caplog.set_level(logging.INFO)
    assert find(stopped, settings=SETTINGS | {"num_workers": 0, "fresh": False}) == (stopped / NEWEST, 7, False)
    assert f"Going on from {stopped / NEWEST}: 1 epoch and 2 of 5 iterations are done." in caplog.text


def test_a_finished_run_is_left_as_it_is(stopped, caplog):
    caplog.set_level(logging.INFO)
    (stopped / "run.json").write_text('{"finished": "now"}')
    before = (stopped / NEWEST).read_bytes()
    run = Run(stopped).go()
    assert run.seen == [] and (stopped / NEWEST).read_bytes() == before
    assert f"{stopped} holds this run, finished after 7 iterations: nothing is left to train." in caplog.text
    (stopped / NEWEST).unlink()
    (stopped / PREVIOUS).unlink()
    with pytest.raises(InputError, match="holds a finished run without its checkpoint; give another --output_dir"):
        find(stopped)


def test_other_settings_are_named(stopped):
    with pytest.raises(InputError) as caught:
        find(stopped, settings=SETTINGS | {"epochs": 4, "seed": 1, "num_workers": 0}, data_hash="b")
    assert "other settings: epochs 3, now 4; seed 0, now 1; the data (another data_hash)." in str(caught.value)
    assert "--fresh true" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_run_from_before_the_choice_of_fit_goes_on_as_it_was(stopped):
    assert "fit" not in SETTINGS and find(stopped, settings=SETTINGS | {"fit": "stretch"}).iteration == 7
    with pytest.raises(InputError, match="other settings: fit stretch, now pad"):
        find(stopped, settings=SETTINGS | {"fit": "pad"})


@pytest.mark.parametrize(("images", "goes_on"), [(0, True), (5, False)])
def test_options_of_images_without_labels_count_where_there_are_some(stopped, images, goes_on):
    states = read_tensors(stopped / NEWEST)
    states["run"] |= {"unlabelled_loss": "hard"}
    torch.save(states, stopped / NEWEST)
    (stopped / "run.json").write_text(f'{{"unlabelled_images": {images}}}')
    settings = SETTINGS | {"unlabelled_loss": "soft"}
    if goes_on:
        assert find(stopped, settings=settings).iteration == 7
        return
    with pytest.raises(InputError, match="other settings: unlabelled_loss hard, now soft"):
        find(stopped, settings=settings)


def test_a_run_of_a_former_version_goes_on_where_it_used_nothing_that_is_gone(stopped):
    states = read_tensors(stopped / NEWEST)
    states["run"] |= {"compensate": 0, "freeze_norm": False}
    torch.save(states, stopped / NEWEST)
    assert find(stopped).iteration == 7
    states["run"]["compensate"] = 64
    torch.save(states, stopped / NEWEST)
    with pytest.raises(InputError, match="holds a run with compensate 64, which this version no longer has. Go on"):
        find(stopped)
    assert find(stopped, fresh=True) is None


def test_fresh_moves_the_former_run_away_and_touches_nothing_else(stopped, caplog):
    caplog.set_level(logging.INFO)
    (stopped / "models").mkdir()
    (stopped / "models" / "model.pt").write_bytes(b"precious")
    (stopped / "mine.txt").write_text("mine")
    (stopped / "cache").mkdir()
    assert find(stopped, settings=SETTINGS | {"seed": 5}, fresh=True) is None
    assert sorted(os.listdir(stopped)) == ["cache", "former_1", "mine.txt"]
    assert (stopped / "former_1" / "models" / "model.pt").read_bytes() == b"precious"
    assert str(stopped / "former_1") in caplog.text
    assert find(stopped / "former_1").iteration == 7  # and it can still go on
    assert find(stopped, fresh=True) is None and not (stopped / "former_2").exists()


def test_resume_from_wants_a_checkpoint_of_the_same_folder(stopped, tmp_path):
    assert find(stopped, resume_from=str(stopped / NEWEST)).iteration == 7
    with pytest.raises(InputError, match="No checkpoint .*last.pt to resume from"):
        find(tmp_path / "a", resume_from=str(tmp_path / "a" / NEWEST))
    with pytest.raises(InputError, match="in its own folder.*--output_dir"):
        find(tmp_path / "a", resume_from=str(stopped / NEWEST))


def test_a_checkpoint_of_a_run_with_other_parts_is_refused(stopped):
    run = Run(stopped)
    run.checkpoints.objects["scaler"] = torch.amp.GradScaler("cpu")
    with pytest.raises(InputError, match="other parts .it lacks 'scaler'"):
        run.go()
    torch.save({"network": {}}, stopped / NEWEST)
    with pytest.raises(InputError, match="isn't a checkpoint of this version"):
        find(stopped)


def less_wide(states: dict[str, Any]) -> None:
    states["network"]["0.weight"] = states["network"]["0.weight"][:2].clone()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (less_wide, "size mismatch for 0.weight"),
        (lambda states: states["network"].update(more=torch.zeros(1)), "Unexpected key"),
        (lambda states: states["optimizer"]["param_groups"].clear(), "different number of parameter groups"),
        (lambda states: states.pop("random"), "it lacks 'random'"),
        (lambda states: states.pop("ended"), "it lacks 'ended'"),
    ],
)
def test_a_checkpoint_of_other_code_is_one_sentence_and_stays(stopped, change, reason):
    states = read_tensors(stopped / NEWEST)
    change(states)
    torch.save(states, stopped / NEWEST)
    before = (stopped / NEWEST).read_bytes()
    with pytest.raises(InputError, match=f"last.pt is of a run with other parts.*{reason}") as caught:
        Run(stopped).go()
    assert len(str(caught.value).splitlines()) == 1 and (stopped / NEWEST).read_bytes() == before


# --- the files --------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # in the middle there may be padding
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b"")], ids=["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(stopped, whole, damage, caplog):
    damage(stopped / NEWEST)
    run = Run(stopped)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1 and f"{stopped / NEWEST} is damaged" in lines[0]
    assert lines[0].endswith(f"going on from the one before, {stopped / PREVIOUS}.")
    assert run.checkpoints.found.iteration == 6
    with pytest.raises(Killed):  # the next checkpoint replaces the damaged one, not the good one
        run.at(8, kill).go()
    assert [read_tensors(stopped / name)["trainer"]["iteration"] for name in (NEWEST, PREVIOUS)] == [7, 6]
    assert Run(stopped).go().digest() == whole.digest()


def test_two_damaged_checkpoints_are_an_error_that_says_what_to_do(stopped):
    for name in (NEWEST, PREVIOUS):
        flip(stopped / name)
    with pytest.raises(InputError) as caught:
        find(stopped)
    for words in ("last.pt is damaged", "previous.pt is damaged", "--output_dir", "--fresh true"):
        assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_no_flipped_bit_gives_other_content(tmp_path):
    path = tmp_path / NEWEST
    states = {"a": torch.arange(300.0), "b": {"c": [1, 2.5, "text"]}}
    write_checkpoint(path, states)
    good, wanted = path.read_bytes(), digest(states)
    assert digest(read_tensors(path)) == wanted
    draw, refused = random.Random(0), 0
    for _ in range(150):
        content = bytearray(good)
        content[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            assert digest(read_tensors(path)) == wanted  # padding, or a date
        except ValueError:
            refused += 1
    assert refused > 100


def test_the_last_two_are_kept(tmp_path):
    for number in range(3):
        write_checkpoint(tmp_path / NEWEST, {"number": number})
    assert [read_tensors(tmp_path / name)["number"] for name in (NEWEST, PREVIOUS)] == [2, 1]
    assert sorted(os.listdir(tmp_path)) == [NEWEST, PREVIOUS]


def written(path: Path) -> int:
    """When, in nanoseconds; 0 where there is no file, as between two renames."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@ON_LINUX
def test_a_kill_while_checkpoints_are_written_leaves_a_whole_one(tmp_path):
    path, last, draw, numbers = tmp_path / NEWEST, 0, random.Random(0), []
    for _ in range(20):
        parent, child = os.getpid(), os.fork()
        if child == 0:
            try:
                number = numbers[-1] if numbers else 0
                while os.getppid() == parent:  # not for ever, where the tests are ended
                    number += 1
                    write_checkpoint(path, {"number": number, "a": torch.full((20_000,), float(number))})
            finally:
                os._exit(1)
        while written(path) <= last:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it lives
            time.sleep(0.001)  # until it has written one
        time.sleep(draw.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        whole = []
        for name in (NEWEST, PREVIOUS):
            if (tmp_path / name).exists():
                states = read_tensors(tmp_path / name)  # raises where it is damaged
                assert (states["a"] == states["number"]).all()
                whole.append(states["number"])
        assert whole
        numbers.append(whole[0])
        last = max(place.stat().st_mtime_ns for place in tmp_path.iterdir())
    assert len(set(numbers)) == 20 and numbers == sorted(numbers)


@needs_full
def test_a_full_disk_ends_the_run_with_one_sentence_and_the_checkpoint_before_stays(tmp_path, whole, monkeypatch):
    run = Run(tmp_path)
    with monkeypatch.context() as until, pytest.raises(InputError) as caught:
        run.at(8, lambda: fill_disk(until)).go()
    assert "last.pt can't be written" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert read_tensors(tmp_path / NEWEST)["trainer"]["iteration"] == 7
    assert Run(tmp_path).go().digest() == whole.digest()


@needs_full
def test_a_disk_that_is_full_for_other_files_is_one_sentence_too(tmp_path):
    with pytest.raises(InputError, match="Nothing more can be written .*No space left.*goes on from .*last.pt"):
        Run(tmp_path).at(8, lambda: Path("/dev/full").write_text("a")).go()


@pytest.mark.parametrize("name", [str, os.fsencode])
def test_a_folder_that_vanishes_is_one_sentence_and_other_missing_files_are_not(name, tmp_path):
    def missing(path: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", name(path))

    folder = tmp_path / "run"
    with pytest.raises(InputError, match="run was removed or moved while this run wrote into it. Give the same"):
        Run(folder).at(8, lambda: missing(folder / "tensorboard" / "events.0")).go()
    with pytest.raises(FileNotFoundError):
        Run(folder).at(9, lambda: missing(tmp_path / "elsewhere")).go()


# --- order, random numbers, signals -----------------------------------------------------------------------------------


def test_a_resumable_sampler_leaves_out_the_beginning_of_one_pass():
    sampler = ResumableSampler(RandomSampler(range(6), generator=torch.Generator().manual_seed(0)))
    order = list(RandomSampler(range(6), generator=torch.Generator().manual_seed(0)))
    sampler.start = 4
    assert len(sampler) == 6 and list(sampler) == order[4:] and len(list(sampler)) == 6


def test_the_random_state_repeats_the_numbers_of_all_generators(tmp_path):
    draw_numbers()
    torch.save(random_state(), tmp_path / "a.pt")
    first = draw_numbers()
    set_random_state(torch.load(tmp_path / "a.pt", weights_only=True))
    assert draw_numbers() == first


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGINT)
        assert signals.number is None and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_settings_of_a_checkpoint_are_plain(stopped):
    run = read_tensors(stopped / NEWEST)["run"]
    assert run == SETTINGS | {"data_hash": "a"} and json.loads(json.dumps(run)) == run


# --- long runs --------------------------------------------------------------------------------------------------------


def held() -> dict[str, int]:
    """What this process holds; scripts/measure/long_run.py does the same at length."""
    gc.collect()
    process = psutil.Process()
    return {
        "tensors": sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()),
        "threads": process.num_threads(),
        "files": process.num_fds(),
        "processes": len(process.children(recursive=True)),
    }


@ON_LINUX
def test_runs_in_one_process_leave_no_tensors_threads_files_or_processes(tmp_path):
    seen, processes = [], held()["processes"]  # of other tests: Python's own tracker of resources stays
    for number in range(4):
        Run(tmp_path / str(number), workers=1, minutes=60, writer=SummaryWriter(tmp_path / "tensorboard")).go()
        seen.append(held())
    assert seen[-1] == seen[1] and seen[-1]["processes"] == processes


def test_a_run_lets_its_loaders_processes_go_though_the_loader_is_kept(tmp_path):
    run = Run(tmp_path, workers=2, minutes=60).go()
    assert run.trainer.data_loader.num_workers == 2 and multiprocessing.active_children() == []


def test_memory_does_not_grow_with_the_iterations(tmp_path):
    run, seen = Run(tmp_path, minutes=0.01, epochs=60), []
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED(every=20), lambda: seen.append((held()["tensors"], psutil.Process().memory_info().rss))
    )
    run.go()
    assert len(seen) == 3 and seen[2][0] <= seen[1][0] and seen[2][1] < 1.02 * seen[0][1]
