# SPDX-License-Identifier: Apache-2.0
"""Writes the report of a run: page, plots, model card, and the analysis into ``metrics.json``."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from dual_skd.errors import InputError, NotWritten
from dual_skd.evaluation.analysis import Analysis, analyse, to_json
from dual_skd.evaluation.report.cases import Case, explained_cases
from dual_skd.evaluation.report.model_card import model_card
from dual_skd.evaluation.report.page import ReportContent, page
from dual_skd.evaluation.report.plots import all_plots, save
from dual_skd.evaluation.report.speed import cpu_milliseconds
from dual_skd.evaluation.run_files import RunFiles, read_run, report_folder
from dual_skd.metrics.bootstrap import RESAMPLES
from dual_skd.networks.build import build_network
from dual_skd.networks.described import require_buildable
from dual_skd.options import Recalibrating, read
from dual_skd.runs.lock import held
from dual_skd.runs.metrics_file import read_metrics, write_metrics
from dual_skd.runs.model_file import load_model
from dual_skd.utils.files import expanded, write_text
from dual_skd.utils.progress import bar

logger = logging.getLogger(__name__)

MAX_TIMED_PARAMETERS = 2e8  # of the large network; a larger one isn't built to be timed


def write_report(
    directory: str | Path,
    split: str = "test",
    *,
    model: str | Path | None = None,
    show_names: bool = False,
    images: bool = True,
    speed: bool = True,
    resamples: int = RESAMPLES,
    recalibrate: str | None = None,
    recalibrate_share: float | None = None,
) -> Path:
    """Writes ``report/report.html``, ``report/model_card.md`` and ``report/plots/``, and the analysis.

    The folder of another split than ``test`` is ``report_<split>``. The analysis goes into ``metrics.json``, under
    ``analysis`` of the split, and the time per image under ``speed``.

    Args:
        directory: ``output_dir`` of an evaluated run.
        split: which evaluation, see :func:`~dual_skd.evaluation.run_files.read_run`.
        model: the model file; None takes the run's own, where there is one.
        show_names: let names of files and the data set's description stand on the page. Without it no page, plot or
            card names a file or a patient.
        images: show single images with maps.
        speed: measure the time per image on this computer, unless it was measured for this run before.
        resamples: number of bootstrap resamples.
        recalibrate: fit an intercept, or intercept and ``slope``, to a share of the patients, and measure the
            recalibrated probabilities on the others; "none" for not. None takes what the last report of this evaluation
            had.
        recalibrate_share: of the patients, for the fit; None as above.

    Returns:
        path of the page.

    Raises:
        InputError: no such run or split, or files that can't be read.
    """
    directory = expanded(directory)
    model = Path(model) if model is not None else directory / "models" / "model.pt"
    given = {"recalibrate": recalibrate, "recalibrate_share": recalibrate_share}
    asked = {name: value for name, value in given.items() if value is not None}
    read(Recalibrating, asked)
    with held(directory, "report") if directory.is_dir() else nullcontext():
        return _write(
            directory, split, model, asked, show_names=show_names, images=images, speed=speed, resamples=resamples
        )


def _write(
    directory: Path, split: str, model: Path, asked: dict[str, Any], *, show_names: bool, images: bool, speed: bool,
    resamples: int,
) -> Path:  # fmt: skip
    network, info = load_model(model) if model.is_file() else (None, {})
    files = read_run(directory, split, calibration=info.get("calibration"), model=model)
    folder, preprocessing = report_folder(directory, split), info.get("preprocessing", {})
    with bar(None, "Writing the report", 4) as steps:
        times = _speed(network, files, directory / "run.json", measure=speed)
        analysis = analyse(files, resamples=resamples, speed=times, recalibrating=_recalibrating(files, asked))
        steps.update(2)
        cases, cases_reason = _cases(files, network, preprocessing) if images else ([], "Images were left out.")
        steps.update()
        plots = all_plots(analysis)
        for plot in chain.from_iterable(plots.values()):
            save(plot, folder / "plots")
        steps.update()
    content = ReportContent(
        analysis,
        plots,
        run=directory.resolve().name,
        selection=files.selection,
        cases=cases,
        cases_reason=cases_reason,
        description=str(files.datalist.get("description") or ""),
        show_names=show_names,
        skipped=tuple(files.datalist.get("unusable") or ()),
    )
    write_text(folder / "report.html", page(content), private=True)  # pictures of patients
    write_text(folder / "model_card.md", model_card(analysis, explained=bool(cases)))
    _record(directory, analysis)
    return folder / "report.html"


def _recalibrating(files: RunFiles, asked: dict[str, Any]) -> Recalibrating:
    """What is asked for, else what the last report of this evaluation had."""
    entry = files.metrics.get(files.split) or {}
    former = (entry.get("analysis") or {}).get("recalibration") or {}
    kept = {f"recalibrate{of}": former[key] for of, key in (("", "form"), ("_share", "share")) if key in former}
    return read(Recalibrating, kept | asked)


def _record(directory: Path, analysis: Analysis) -> None:
    """Adds the analysis to ``metrics.json``, and the time per image where it is known."""
    record = read_metrics(directory)
    record[analysis.split] = (record.get(analysis.split) or {}) | {"analysis": to_json(analysis)}
    if analysis.efficiency.speed is not None:
        record["speed"] = analysis.efficiency.speed
    write_metrics(directory, record)


def _cases(files: RunFiles, network: nn.Module | None, preprocessing: dict[str, Any]) -> tuple[list[Case], str]:
    """Single images with maps, and why there are fewer or none."""
    if network is None:
        return [], "There are no pictures: the run has no model file."
    return explained_cases(files, network, preprocessing)


def _speed(network: nn.Module | None, files: RunFiles, record: Path, *, measure: bool) -> dict[str, Any] | None:
    """Milliseconds of student and large network, measured once per run."""
    run, shape, former = files.run, files.run.get("input_shape"), files.metrics.get("speed")
    if former and former.get("run") == run.get("started"):
        return former
    if not measure or network is None or shape is None:
        return None
    found = {"run": run.get("started"), "student": cpu_milliseconds(network, shape)}
    large = (run.get("networks") or {}).get("large") or {}
    if large.get("parameters"):  # else it can't be built for these images
        try:
            require_buildable(large["architecture"], record, most_bytes=4 * MAX_TIMED_PARAMETERS)
            found["large"] = cpu_milliseconds(build_network(**large["architecture"]).eval(), shape)
        except InputError as error:  # a network of the user's own that isn't allowed here; the report goes without
            logger.info("The large network isn't timed: %s", error)
    return found


class ReportWriter:
    """Handler of the evaluator that writes the report when the evaluation has ended; attach it last.

    Where there can't be a report, the log gives the reason: the evaluation counts. A full disk ends it.

    Args:
        output_dir: of the run.
        split: name of the evaluation.
        model: the model file that is evaluated.
        resamples: number of bootstrap resamples.
        recalibrate: see :func:`write_report`.
        recalibrate_share: see there.
    """

    def __init__(
        self,
        output_dir: str | Path,
        split: str = "test",
        *,
        model: str | Path | None = None,
        resamples: int = RESAMPLES,
        recalibrate: str | None = None,
        recalibrate_share: float | None = None,
    ) -> None:
        self.output_dir, self.split, self.model, self.resamples = Path(output_dir), split, model, resamples
        self.recalibrating: dict[str, Any] = {"recalibrate": recalibrate, "recalibrate_share": recalibrate_share}

    def attach(self, engine: Engine) -> None:
        """Registers the handler at the end of the evaluation."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        try:
            write_report(self.output_dir, self.split, model=self.model, resamples=self.resamples, **self.recalibrating)
        except NotWritten:
            raise
        except InputError as error:
            logger.warning("There is no report: %s", error)
