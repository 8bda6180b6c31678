# SPDX-License-Identifier: Apache-2.0
"""Predictions as DICOM Comprehensive SR, one report per study, which a PACS keeps beside the images.

The content is described in :mod:`dual_skd.serving.dicom_sr_content`. Patient and study are those of the images. The
report is preliminary and unverified, its content qualified as RESEARCH (PS3.3, C.8.13.2.1.1).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from ignite.engine import Engine, Events
from pydicom.dataset import Dataset

import dual_skd
from dual_skd.data.reading.dicom_file import open_dicom
from dual_skd.data.reading.dicom_pixels import frame_in_file, series_in
from dual_skd.data.reading.locators import split_locator
from dual_skd.data.reading.refusals import failures_named
from dual_skd.data.records.dicom_ids import read_ids
from dual_skd.data.records.image_files import is_dicom
from dual_skd.errors import InputError
from dual_skd.serving.dicom_sr_content import MANUFACTURER, SCHEME, Classified, Classifier, new_uid, report_content
from dual_skd.utils.files import make_folder, replace_file

if TYPE_CHECKING:
    from highdicom.sr import ComprehensiveSR

    from dual_skd.serving.torch_predictor import TorchPredictor

logger = logging.getLogger(__name__)
logging.getLogger("highdicom").setLevel(logging.WARNING)  # it logs every module that it copies

SERIES_NUMBER = 9001  # behind those of the images
_REFERENCED = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality"]
_SIZE = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"]
_MAY_BE_EMPTY = """PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime
ReferringPhysicianName""".split()


def measurement_report(
    images: Sequence[Classified],
    classifier: Classifier,
    *,
    seed: str | None = None,
    created: datetime | None = None,
) -> ComprehensiveSR:
    """Builds the report of one study.

    Args:
        images: what was classified, all of one study and one patient.
        classifier: the algorithm.
        seed: makes all new UIDs the same for the same seed and images, for tests; None: new ones in every call.
        created: date and time of the report; None: now.

    Returns:
        highdicom's document; ``save_as`` writes it.

    Raises:
        InputError: a file can't be read, they aren't of one study of one patient, or their header lacks or contradicts
            what the standard asks for.
    """
    created = created or datetime.now()
    headers = [[_reference_header(file) for file in image.files] for image in images]
    evidence = [header for of_image in headers for header in of_image]
    _require_one_study(evidence, images)
    evidence[0] = _full_header(images[0].files[0])
    content = report_content(images, headers, classifier, seed)
    try:
        report = _document(evidence, content, classifier, seed, created)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of highdicom, on headers outside the standard
        raise InputError(
            f"The study of {images[0].files[0]} gets no report, its header isn't what the standard asks for "
            f"({type(error).__name__}: {error}); mend the header."
        ) from error
    # Unicode only where the images' own character set may not hold the names of classes
    texts = [*classifier.class_names, *(code[2] for code in classifier.class_codes.values())]
    kept = evidence[0].get("SpecificCharacterSet") if all(text.isascii() for text in texts) else "ISO_IR 192"
    if kept is not None:
        report.SpecificCharacterSet = kept
    report.InstanceCreationDate, report.InstanceCreationTime = report.ContentDate, report.ContentTime
    report.ContributingEquipmentSequence[-1].ContributionDateTime = created.strftime("%Y%m%d%H%M%S")  # of highdicom
    return report


def _require_one_study(evidence: Sequence[Dataset], images: Sequence[Classified]) -> None:
    for keyword, name in (("StudyInstanceUID", "study"), ("PatientID", "patient")):
        if len(found := {str(header.get(keyword, "")) for header in evidence}) > 1:
            raise InputError(
                f"Expected images of one {name} in a report, found {len(found)}, among others in {images[0].files[0]} "
                f"and {images[-1].files[-1]}: the ids of these files contradict each other; mend them."
            )


def _document(
    evidence: Sequence[Dataset], content: Dataset, classifier: Classifier, seed: str | None, created: datetime
) -> ComprehensiveSR:
    """The DICOM object around a content, with the attributes of patient and study of ``evidence[0]``."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import ComprehensiveSR

    series, report = (
        new_uid(seed, role, evidence[0].get("StudyInstanceUID"), classifier.sha256) for role in ("series", "report")
    )
    scheme = CodingSchemeIdentificationItem(
        SCHEME,
        name="Classes of dual-skd models: a class's code is its name",
        version=dual_skd.__version__,
        responsible_organization=MANUFACTURER,
    )
    return ComprehensiveSR(
        evidence=evidence,
        content=content,
        series_instance_uid=series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=report,
        instance_number=1,
        series_description="Classification, for research use only",
        manufacturer=MANUFACTURER,
        manufacturer_model_name="dual_skd",
        software_versions=dual_skd.__version__,
        device_serial_number=classifier.sha256,
        content_qualification="RESEARCH",
        content_date=created.date(),
        content_time=created.time().replace(microsecond=0),
        is_complete=True,
        specific_character_set=None,  # highdicom refuses the empty first value of Japanese and Korean files
        coding_schemes=[scheme],
    )


def _files_of(image: str) -> tuple[list[str], int | None] | None:
    """The DICOM files behind a locator, and the place in the file of the frame it names; None for other formats."""
    path, fragment = split_locator(image)
    if path.is_dir():
        return [header.path for header in series_in(path, fragment).headers], None
    if not is_dicom(path):
        return None
    return [str(path)], frame_in_file(path, int(fragment.removeprefix("frame="))) if fragment else None


def _reference_header(file: str | Path) -> Dataset:
    """What a reference needs of a file's header."""
    with failures_named(file):
        header = open_dicom(file, [*_REFERENCED, *_SIZE])
    if missing := [keyword for keyword in _REFERENCED[:4] if not header.get(keyword)]:
        raise InputError(f"{file} has no {' and no '.join(missing)}, so no report can refer to it; mend its header.")
    return header


def _full_header(file: str | Path) -> Dataset:
    """The header that patient and study are copied from, with what may be empty (type 2) added where it is absent."""
    with failures_named(file):
        header = pydicom.dcmread(file, force=True, stop_before_pixels=True)
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, None)
        if header.PatientSex not in ("M", "F", "O"):  # the only values of the standard
            header.PatientSex = None
    return header


class StructuredReportWriter:
    """Handler of an evaluator without labels that writes one report per study when all images are done.

    Only probabilities and ids are kept until then, so that memory doesn't grow with the headers. Names of files are
    the beginning of the SHA-256 of StudyInstanceUID. Images that aren't DICOM files, those without StudyInstanceUID,
    studies whose headers can't be used and images that couldn't be predicted are counted in the log.

    Args:
        folder: of the reports.
        images: locators in the order of the loader.
        predictor: the model.
        class_codes: see :class:`~dual_skd.serving.dicom_sr_content.Classifier`.
        seed: see :func:`measurement_report`.

    Raises:
        InputError: highdicom isn't installed; a class code can't be used.
    """

    def __init__(
        self,
        folder: str | Path,
        images: Sequence[str],
        predictor: TorchPredictor,
        *,
        class_codes: Mapping[str, Sequence[str]] | None = None,
        seed: str | None = None,
    ) -> None:
        if find_spec("highdicom") is None:
            raise InputError(
                "DICOM Structured Reports need the package highdicom, which isn't installed: pip install highdicom, or "
                "leave --dicom_sr out."
            )
        self.folder = Path(folder)
        self.images = images
        self.seed = seed
        info = predictor.info
        parameters = [
            f"network: {json.dumps(info['architecture'])}",
            f"preprocessing: {json.dumps(info.get('preprocessing', {}))}",
            f"logits divided by the temperature {predictor.temperature or 1:.6g}",
        ]
        multi_label = info.get("multi_label", False)
        self.classifier = Classifier(info["class_names"], predictor.path, multi_label, parameters, class_codes or {})

    def attach(self, engine: Engine) -> None:
        """Registers the handler; postprocessing has to turn logits into probabilities before."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._rows: list[list[float]] = []  # empty for an image that couldn't be used

    def _collect(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            problem = item.get("problem") if isinstance(item, Mapping) else None
            self._rows.append([] if problem else output["pred"].float().tolist())

    def _write(self, engine: Engine) -> None:
        names, written = set(), 0
        for study, images in self._studies().items():
            try:
                report = measurement_report(images, self.classifier, seed=self.seed)
            except InputError as error:
                logger.warning("No report: %s", error)
                continue
            names.add(name := hashlib.sha256(study.encode()).hexdigest()[:16])
            target = make_folder(self.folder, private=True) / f"{name}.dcm"
            replace_file(target, partial(report.save_as, enforce_file_format=True), private=True)
            written += len(images)
        logger.info("Structured Reports of %d studies (%d images) written to %s.", len(names), written, self.folder)
        if left := len(self._rows) - written:
            logger.warning("%d images are in no report: no DICOM, without StudyInstanceUID, or not usable.", left)

    def _studies(self) -> dict[str, list[Classified]]:
        """StudyInstanceUID -> its images, in their order, of those that were classified and are DICOM files."""
        found = []
        for image, row in zip(self.images, self._rows, strict=True):
            source = _files_of(image) if row else None
            if source is not None:
                found.append(Classified(source[0], row, source[1]))
        studies: dict[str, list[Classified]] = {}
        for one, ids in zip(found, read_ids([str(one.files[0]) for one in found]), strict=True):
            if not isinstance(ids, InputError) and ids.study:
                studies.setdefault(ids.study, []).append(one)
        return studies
