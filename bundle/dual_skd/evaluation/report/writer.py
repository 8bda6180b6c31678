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
from dual_skd.evaluation.analysis.per_patient import files_per_patient
from dual_skd.evaluation.report.cases import Case, explained_cases
from dual_skd.evaluation.report.drawing import save
from dual_skd.evaluation.report.model_card import model_card
from dual_skd.evaluation.report.page import ReportContent, page
from dual_skd.evaluation.report.plots import all_plots
from dual_skd.evaluation.report.speed import cpu_milliseconds
from dual_skd.evaluation.run_files import RunFiles, read_run, report_folder
from dual_skd.metrics.intervals import RESAMPLES
from dual_skd.networks.build import build_network
from dual_skd.networks.described import require_buildable
from dual_skd.options import Reporting, read
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
    **asked: Any,
) -> Path:
    """Writes ``report/report.html``, ``report/model_card.md`` and ``report/plots/``, and the analysis.

    The folder of another split than ``test`` is ``report_<split>``. The analysis goes into ``metrics.json``, under
    ``analysis`` of the split, and the time per image under ``speed``. The report per patient leaves that of images as
    it is: its files are in the folder ``patients_mean`` or ``patients_max`` of that one, its analysis in the entry of
    this name.

    Args:
        directory: ``output_dir`` of an evaluated run.
        split: which evaluation, see :func:`~dual_skd.evaluation.run_files.read_run`.
        model: the model file; None takes the run's own, where there is one.
        show_names: let names of files and the data set's description stand on the page. Without it no page, plot or
            card names a file or a patient.
        images: show single images with maps.
        speed: measure the time per image on this computer, unless it was measured for this run before.
        resamples: number of bootstrap resamples.
        asked: fields of :class:`~dual_skd.options.Reporting`, the options of a report. A recalibration that isn't asked
            for is that of the last report of this evaluation.

    Returns:
        path of the page.

    Raises:
        InputError: no such run or split, files that can't be read, options that can't be, or no patient is known.
    """
    read(Reporting, asked)
    directory = expanded(directory)
    model = Path(model) if model is not None else directory / "models" / "model.pt"
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
    options = _with_former(files, asked)
    if options.per == "patient":
        files = files_per_patient(files, options.combine)
    folder, preprocessing = report_folder(directory, split, files.unit), info.get("preprocessing", {})
    with bar(None, "Writing the report", 4) as steps:
        times = _speed(network, files, directory / "run.json", measure=speed)
        analysis = analyse(files, resamples=resamples, speed=times, options=options)
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


def _with_former(files: RunFiles, asked: dict[str, Any]) -> Reporting:
    """What is asked for; a recalibration also where the last report of this evaluation had it."""
    entry = files.metrics.get(files.split) or {}
    former = (entry.get("analysis") or {}).get("recalibration") or {}
    kept = {f"recalibrate{of}": former[key] for of, key in (("", "form"), ("_share", "share")) if key in former}
    return read(Reporting, kept | asked)


def _record(directory: Path, analysis: Analysis) -> None:
    """Adds the analysis to ``metrics.json``, and the time per image where it is known."""
    record, found = read_metrics(directory), {"analysis": to_json(analysis)}
    if analysis.unit.key:
        found = {analysis.unit.key: found}
    record[analysis.split] = (record.get(analysis.split) or {}) | found
    if analysis.efficiency.speed is not None:
        record["speed"] = analysis.efficiency.speed
    write_metrics(directory, record)


def _cases(files: RunFiles, network: nn.Module | None, preprocessing: dict[str, Any]) -> tuple[list[Case], str]:
    """Single images with maps, and why there are fewer or none."""
    if files.unit.name == "patient":
        return [], "A map is of one image: those with maps are in the report of images, one folder above this page."
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
        asked: see :func:`write_report`; of patients there is a second report.
    """

    def __init__(
        self,
        output_dir: str | Path,
        split: str = "test",
        *,
        model: str | Path | None = None,
        resamples: int = RESAMPLES,
        **asked: Any,
    ) -> None:
        self.output_dir, self.split, self.model, self.resamples = Path(output_dir), split, model, resamples
        self.options = read(Reporting, asked)

    def attach(self, engine: Engine) -> None:
        """Registers the handler at the end of the evaluation."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        self._write("There is no report: %s", self.options.model_copy(update={"per": "image", "combine": "mean"}))
        if self.options.per == "patient":
            self._write("There is no report of patients: %s", self.options)

    def _write(self, without: str, options: Reporting) -> None:
        try:
            write_report(self.output_dir, self.split, model=self.model, resamples=self.resamples, **vars(options))
        except NotWritten:
            raise
        except InputError as error:
            logger.warning(without, error)
