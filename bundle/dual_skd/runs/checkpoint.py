# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: however it is stopped, it goes on to the same weights, bit by bit."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn

from dual_skd.errors import FULL_DISK_ERRORS, InputError
from dual_skd.networks.inspect import unwrap
from dual_skd.options import Training, chosen, completed, marks, removed
from dual_skd.options.training import Unlabelled
from dual_skd.runs.bad_numbers import in_any_process
from dual_skd.runs.distributed import several_processes
from dual_skd.runs.random_state import ResumableSampler, random_state, set_random_state
from dual_skd.runs.signals import StopSignals
from dual_skd.utils.files import expanded, read_json, replace_file
from dual_skd.utils.tensor_files import read_tensors, save_tensors
from dual_skd.utils.wording import counted, quoted

logger = logging.getLogger(__name__)

NEWEST, PREVIOUS = "last.pt", "previous.pt"
# what a run leaves in its folder, apart from caches and generated data
FILES_OF_A_RUN = (NEWEST, PREVIOUS, "models", "tensorboard", "metrics.json", "run.json", "datalist.json",
            "selection_report.csv", "predictions*.csv", "report", "report_*")  # fmt: skip
# settings that don't affect the results, or not the part already trained; the data hash stands for the data
WITHOUT_INFLUENCE = [name for name, one in marks(Training).items() if one.free]


class Found(NamedTuple):
    """A checkpoint to go on from.

    Attributes:
        path: the file.
        iteration: iterations that the run has had.
        finished: whether it came to its end, so that nothing is left to do.
    """

    path: Path
    iteration: int
    finished: bool = False


def find_checkpoint(
    output_dir: str | Path,
    *,
    settings: Mapping[str, Any],
    data_hash: str,
    fresh: bool = False,
    resume_from: str | Path | None = None,
) -> Found | None:
    """Decides, before anything is written, whether a run goes on from a checkpoint in its folder or starts afresh.

    Args:
        output_dir: folder of the run.
        settings: of the run, plain values. Those not in :data:`WITHOUT_INFLUENCE` have to be those of the checkpoint.
        data_hash: of the run's data, see ``DataList.hash``.
        fresh: start afresh. What a former run left is moved to a folder ``former_<number>`` in ``output_dir``.
        resume_from: ``last.pt`` of ``output_dir``; makes a missing checkpoint an error.

    Returns:
        the newest whole checkpoint, or None for a new run.

    Raises:
        InputError: there is a run of other settings or data, one with options that this version no longer has, a
            finished one without its checkpoint, one whose checkpoints are damaged, or with ``resume_from`` none at all.
    """
    folder = Path(output_dir)
    if fresh:
        _set_aside(folder)
        return None
    _require_own_folder(resume_from, folder)
    remedy = (
        f"give another --output_dir, or --fresh true to start afresh (what is in {folder} is moved to a folder in it)"
    )
    finished = bool(read_json(folder / "run.json").get("finished"))
    files = [path for path in (folder / NEWEST, folder / PREVIOUS) if path.is_file()]
    if not files:
        if resume_from is not None:
            raise InputError(f"No checkpoint {resume_from} to resume from; start the run without resume.json.")
        if finished:
            raise InputError(f"{folder} holds a finished run without its checkpoint; {remedy}.")
        return None
    path, states = _newest_whole(files, remedy)
    try:
        former, iteration, length = states["run"], states["trainer"]["iteration"], states["trainer"]["epoch_length"]
    except (KeyError, TypeError):
        raise InputError(f"{path} isn't a checkpoint of this version of the bundle; {remedy}.") from None
    _require_same_run(former, _plain_settings(settings, data_hash), folder, remedy)
    if finished:
        logger.info("%s holds this run, finished after %d iterations: nothing is left to train.", folder, iteration)
    else:
        logger.info(
            "Going on from %s: %s%s are done.",
            path,
            counted(iteration // length, "epoch"),
            f" and {iteration % length} of {length} iterations" if iteration % length else "",
        )
    return Found(path, iteration, finished)


class Checkpoints:
    """Handler of the trainer that keeps its state on disk, takes it up again, and lets a signal end it in good order.

    ``last.pt`` is written after every epoch and, ``minutes`` after the last time, within one: an epoch may take hours.
    The one before is ``previous.pt``. Both are PyTorch's zip files of tensors and plain values, whose CRC-32 sums tell
    a damaged one. They hold ``run`` (settings and data hash), ``trainer`` (iteration and length of an epoch),
    ``random`` (the generators now), ``epoch_random`` (when the epoch began: it decided the order of the images),
    ``ended`` (by early stopping), and the state of every object.

    Attach it after everything that changes state at the end of an iteration or epoch: schedulers, validation, record.

    Within an epoch it needs a :class:`ResumableSampler`, else it writes after epochs only. Random transforms inside the
    data set would not be repeated exactly; :class:`dual_skd.data.AugmentBatch` is.

    Args:
        output_dir: folder of the run.
        objects: name -> anything with ``state_dict`` and ``load_state_dict``; entries that are None are left out.
        settings: see :func:`find_checkpoint`.
        data_hash: see :func:`find_checkpoint`.
        found: what to go on from, or None.
        minutes: between two checkpoints within an epoch.
        writer: TensorBoard's; flushed with every checkpoint, closed at the end.
    """

    def __init__(
        self,
        output_dir: str | Path,
        objects: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        data_hash: str = "",
        found: Found | None = None,
        minutes: float = 10.0,
        writer: Any = None,
    ) -> None:
        self.folder = Path(output_dir)
        self.objects = {name: item for name, item in objects.items() if item is not None}
        self.run_settings = _plain_settings(settings or {}, data_hash)
        self.found = found
        self.seconds = 60 * minutes
        self.writer = writer
        self._whole = found.path if found else None  # never to be overwritten by a damaged one
        self._saved = time.monotonic()
        self._epoch_random: dict[str, Any] = {}
        self._signals = StopSignals()
        self._stop = False

    def run(self, trainer: Engine) -> None:
        """Trains to the last epoch, from the checkpoint where there is one; a finished run is left as it is.

        Raises:
            SystemExit: 130 or 143 after SIGINT (Ctrl-C) or SIGTERM, with the state saved.
            InputError: the disk is full, or the checkpoint is of a run with other parts; besides, what training raises.
        """
        if self.found and self.found.finished:
            return
        self._attach(trainer)
        try:
            with self._signals:
                try:
                    trainer.run()
                finally:
                    if getattr(trainer.data_loader, "_iterator", None) is not None:
                        trainer.data_loader._iterator = None  # PyTorch keeps its processes as long as the loader
                    if self.writer is not None:
                        self.writer.close()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._holds(error.filename):
                raise InputError(
                    f"{self.folder} was removed or moved while this run wrote into it. Give the same command again: it "
                    "goes on from the checkpoint that is there then, or begins anew."
                ) from error
            if error.errno not in FULL_DISK_ERRORS:
                raise
            raise InputError(
                f"Nothing more can be written to {self.folder} ({error.strerror}). Make room and give the same command "
                f"again: the run goes on {self._goes_on()}."
            ) from error
        except RuntimeError as error:
            if self._signals.number is None:
                raise
            logger.warning("%s", error)  # the signal has ended the loader's processes, too
            self._stop = True
        if self._stop:
            number = self._signals.number or signal.SIGTERM  # another process of several had the signal
            wanted = number == signal.SIGINT  # by the user, who needs no warning of it
            level, by = (logging.INFO, "Ctrl-C") if wanted else (logging.WARNING, signal.Signals(number).name)
            logger.log(level, "Stopped by %s; the same command goes on %s.", by, self._goes_on())
            raise SystemExit(128 + number)

    def _holds(self, name: str | bytes | None) -> bool:
        """Whether a file, as an OSError names it, is of the run's folder."""
        return name is not None and Path(os.fsdecode(name)).absolute().is_relative_to(self.folder.absolute())

    def _goes_on(self) -> str:
        return f"from {self._whole}" if self._whole else "from the beginning: there was no checkpoint yet"

    def _attach(self, trainer: Engine) -> None:
        trainer.add_event_handler(Events.STARTED, self._start)
        trainer.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._finish_iteration)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)

    def _start(self, trainer: Engine) -> None:
        self._saved = time.monotonic()
        if self.found is None:
            return
        states, self.found = read_tensors(self.found.path), None
        try:
            for name, item in self.objects.items():
                (unwrap(item) if isinstance(item, nn.Module) else item).load_state_dict(states[name])
            trainer.load_state_dict(states["trainer"])
            set_random_state(states["epoch_random"])
            now, ended = states["random"], states["ended"]
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:  # of PyTorch and ignite
            reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
            raise InputError(
                f"{self._whole} is of a run with other parts ({reason}). Start afresh with --fresh true or in another "
                "--output_dir; or, if the code of a network has changed since, go on with the former."
            ) from error
        position = trainer.state.iteration % trainer.state.epoch_length
        if position:
            # the loader draws the epoch's order again, from the same numbers; then the generators go where they were
            trainer.data_loader.sampler.start = position * trainer.data_loader.batch_size
            first = Events.ITERATION_STARTED(once=trainer.state.iteration + 1)
            trainer.add_event_handler(first, lambda: set_random_state(now))
        if ended:
            trainer.terminate()

    def _start_epoch(self, trainer: Engine) -> None:
        self._epoch_random = random_state()

    def _finish_iteration(self, trainer: Engine) -> None:
        position = trainer.state.iteration % (trainer.state.epoch_length or 1)
        if position == 0 or position % getattr(trainer, "accumulation_steps", 1):
            return  # the validation of a full epoch comes first; accumulated gradients aren't kept
        stop = self._stops(trainer)
        can = isinstance(getattr(trainer.data_loader, "sampler", None), ResumableSampler)
        if can and (stop or time.monotonic() - self._saved >= self.seconds):
            self._save(trainer, self._epoch_random)
        if stop:
            trainer.terminate(skip_completed=True)

    def _finish_epoch(self, trainer: Engine) -> None:
        self._save(trainer, random_state())
        if self._stops(trainer):
            trainer.terminate(skip_completed=True)

    def _stops(self, trainer: Engine) -> bool:
        """Whether any process has had a signal: all stop after the same iteration."""
        self._stop = in_any_process(self._signals.number is not None, getattr(trainer.state, "device", None))
        return self._stop

    def _save(self, trainer: Engine, epoch_random: Mapping[str, Any]) -> None:
        newest = self.folder / NEWEST
        if getattr(trainer.state, "rank", 0) != 0:
            self._whole = newest  # the first process writes it
            return
        if self.writer is not None:
            self.writer.flush()
        states = {name: unwrap(item).state_dict() if isinstance(item, nn.Module) else item.state_dict()
                  for name, item in self.objects.items()}  # fmt: skip
        states |= {"run": self.run_settings, "trainer": dict(trainer.state_dict()), "random": random_state(),
                   "epoch_random": epoch_random, "ended": bool(trainer.should_terminate)}  # fmt: skip
        write_checkpoint(newest, states, keep=self._whole == newest)
        self._whole, self._saved = newest, time.monotonic()


def write_checkpoint(path: Path, states: Mapping[str, Any], *, keep: bool = True) -> None:
    """Writes a checkpoint, and keeps the one before as ``previous.pt``; one of the two is whole at every moment.

    Args:
        path: the file.
        states: tensors and plain values.
        keep: whether the file that is there is whole, so that it may become the previous one.

    Raises:
        InputError: it can't be written; what was there is unchanged.
    """
    former = path.with_name(PREVIOUS) if keep else None
    replace_file(path, partial(save_tensors, states), former=former, private=True)  # it has the path of the data


def _newest_whole(files: list[Path], remedy: str) -> tuple[Path, dict[str, Any]]:
    problems = []
    for path in files:
        try:
            states = read_tensors(path)
        except ValueError as error:
            problems.append(f"{path} is damaged ({error})")
        else:
            for problem in problems:
                logger.warning("%s: going on from the one before, %s.", problem, path)
            return path, states
    raise InputError(f"{'; '.join(problems)}; there is no other checkpoint to go on from: {remedy}.")


def _require_own_folder(resume_from: str | Path | None, folder: Path) -> None:
    """Refuses to resume from another folder; a name alone is a file of the run's own."""
    if resume_from is None:
        return
    path = expanded(resume_from)
    asked = folder / path if path.name == str(resume_from) else path
    if asked.absolute() != (folder / NEWEST).absolute():
        raise InputError(
            f"A run goes on in its own folder: resume_from is {resume_from}, but output_dir {folder}; give "
            f"--output_dir {quoted(Path(resume_from).parent)} instead."
        )


def _set_aside(folder: Path) -> None:
    """Moves what a former run left to a folder of its own; with several processes the first one does it."""
    if not several_processes() or dist.get_rank() == 0:
        found = sorted({path for pattern in FILES_OF_A_RUN for path in folder.glob(pattern)})
        if found:
            aside = next(path for n in count(1) if not (path := folder / f"former_{n}").exists())
            aside.mkdir()
            for path in found:
                path.rename(aside / path.name)
            logger.info("Starting afresh; the former run of %s is now in %s.", folder, aside)
    if several_processes():
        dist.barrier()


def _plain_settings(settings: Mapping[str, Any], data_hash: str) -> dict[str, Any]:
    return json.loads(json.dumps({**settings, "data_hash": data_hash}, default=str))


def _require_same_run(former: Mapping[str, Any], now: Mapping[str, Any], folder: Path, remedy: str) -> None:
    """Refuses to go on with a run of other settings or data."""
    if lost := removed(former):
        raise InputError(
            f"{folder} holds a run with {lost}, which this version no longer has. Go on with the version of dual_skd "
            f"that began it, or {remedy}."
        )
    former = completed(former)
    without_influence = {*WITHOUT_INFLUENCE}
    if read_json(folder / "run.json").get("unlabelled_images") == 0:  # nor here, as the data are the same
        without_influence |= Unlabelled.model_fields.keys()
    names = [name for name in now if name in former and name not in without_influence and former[name] != now[name]]
    derived = Training.model_fields.keys() - chosen(former).keys() - chosen(now).keys()  # from others that are named
    names = [name for name in names if name not in derived] or names
    different = [
        "the data (another data_hash)" if name == "data_hash" else f"{name} {former[name]}, now {now[name]}"
        for name in names
    ]
    if different:
        raise InputError(
            f"{folder} holds a run with other settings: {'; '.join(different)}. Use the former, or {remedy}."
        )
