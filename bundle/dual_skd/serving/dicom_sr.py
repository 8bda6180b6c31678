# SPDX-License-Identifier: Apache-2.0
"""Predictions as DICOM Comprehensive SR, one report per study, which a PACS keeps beside the images.

The content is a Measurement Report (PS3.16, TID 1500) with one Measurement Group (TID 1501) per image or series that
was classified: its source images and frames, one probability (TID 300) per class, the class that was predicted, and
the algorithm (TID 4019) with the checksum of its weights. Codes of the standard are used where they mean the same:

===============================  ==================================================================================
what is said                     code
===============================  ==================================================================================
the number                       (122157, DCM, "Probability"), unit (1, UCUM, "no units")
of which class it is             concept modifier (121071, DCM, "Finding"), its value the class
the answer                       (predicted-class, 99DUALSKD, "Predicted class"): the standard has no code that says no
                                 more than this; a Finding would be the claim that it is there
a class                          the caller's code, such as (233604007, SCT, "Pneumonia"); without one its name in
                                 99DUALSKD, as a name alone doesn't tell what those who labelled meant by it
===============================  ==================================================================================

Patient and study are those of the images. The report is preliminary and unverified, its content qualified as RESEARCH
(PS3.3, C.8.13.2.1.1).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
from ignite.engine import Engine, Events
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

import dual_skd
from dual_skd.data.reading.dicom_file import frames_of, open_dicom
from dual_skd.data.reading.dicom_pixels import frame_in_file, series_in
from dual_skd.data.reading.locators import split_locator
from dual_skd.data.reading.refusals import failures_named
from dual_skd.data.records.dicom_ids import read_ids
from dual_skd.data.records.image_files import is_dicom
from dual_skd.errors import InputError
from dual_skd.utils.files import replace_file, sha256_of

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept, ComprehensiveSR, MeasurementsAndQualitativeEvaluations

logger = logging.getLogger(__name__)
logging.getLogger("highdicom").setLevel(logging.WARNING)  # it tells every module that it copies

SCHEME = "99DUALSKD"  # PS3.16, 8: designators of private coding schemes begin with 99
NOTICE = "For research use only. Not a medical device: no clinical decision may rest on this report."
MANUFACTURER = "The dual-skd developers"
SERIES_NUMBER = 9001  # behind those of the images
PROCEDURES = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "NM": codes.cid100.NMUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
    **dict.fromkeys(("CR", "DX", "RG"), codes.cid100.XRUnspecifiedBodyRegion),
}
_REFERENCED = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality"]
_SIZE = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"]
_MAY_BE_EMPTY = """PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime
ReferringPhysicianName""".split()


@dataclass(frozen=True)
class Classified:
    """One image or series, and what the network says of it.

    Args:
        files: its DICOM files, of one study.
        probabilities: in the order of the class names.
        frame: the frame that was classified, counted from 0 in the order of the file; None: the files as a whole.
    """

    files: Sequence[str | Path]
    probabilities: Sequence[float]
    frame: int | None = None


@dataclass(frozen=True)
class Classifier:
    """What is said of the algorithm.

    Args:
        class_names: in the order of the probabilities.
        weights: the file of the weights.
        multi_label: every class above one half is predicted, instead of the most probable one.
        parameters: further sentences, one each.
        class_codes: class name -> (code, coding scheme, meaning), where there is a code for what the class means.

    Raises:
        InputError: codes for classes that there aren't, or that aren't of three texts.
    """

    class_names: Sequence[str]
    weights: str | Path
    multi_label: bool = False
    parameters: Sequence[str] = ()
    class_codes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, code in self.class_codes.items():
            if name not in self.class_names or isinstance(code, str) or len(code) != 3:
                raise InputError(
                    f"Expected a code, its scheme and its meaning per class ({', '.join(self.class_names)}), found "
                    f"{name!r}: {code!r}; write for instance {{'pneumonia': ['233604007', 'SCT', 'Pneumonia']}}."
                )

    @property
    def sha256(self) -> str:
        """Checksum of the file of the weights, as ``sha256sum`` gives it."""
        return sha256_of(self.weights)

    def predicted(self, probabilities: Sequence[float]) -> list[int]:
        """Indices of the predicted classes: one, or with ``multi_label`` any number."""
        if self.multi_label:
            return [index for index, value in enumerate(probabilities) if value > 0.5]
        return [max(range(len(probabilities)), key=probabilities.__getitem__)]

    def coded(self) -> list[CodedConcept]:
        """The classes as coded concepts."""
        from highdicom.sr import CodedConcept

        found = []
        for name in self.class_names:
            code, scheme, meaning = self.class_codes.get(name, (_plain(name), SCHEME, _plain(name)))
            found.append(CodedConcept(code, scheme, meaning[:64]))
        return found


def measurement_report(
    images: Sequence[Classified],
    classifier: Classifier,
    *,
    seed: str | None = None,
    created: datetime | None = None,
) -> ComprehensiveSR:
    """The report of one study.

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
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import ComprehensiveSR

    created = created or datetime.now()
    sha256 = classifier.sha256
    opened = [[_opened(file) for file in image.files] for image in images]
    evidence = [header for headers in opened for header in headers]
    for keyword, name in (("StudyInstanceUID", "study"), ("PatientID", "patient")):
        if len(found := {str(header.get(keyword, "")) for header in evidence}) > 1:
            raise InputError(
                f"Expected images of one {name} in a report, found {len(found)}, among others in {images[0].files[0]} "
                f"and {images[-1].files[-1]}: the ids of these files contradict each other; mend them."
            )
    evidence[0] = _whole_header(images[0].files[0])
    content = _content(images, opened, classifier, sha256, seed)
    uids = [_uid(seed, role, evidence[0].get("StudyInstanceUID"), sha256) for role in ("series", "report")]
    texts = [*classifier.class_names, *(code[2] for code in classifier.class_codes.values())]
    try:
        report = ComprehensiveSR(
            evidence=evidence,
            content=content[0],
            series_instance_uid=uids[0],
            series_number=SERIES_NUMBER,
            sop_instance_uid=uids[1],
            instance_number=1,
            series_description="Classification, for research use only",
            manufacturer=MANUFACTURER,
            manufacturer_model_name="dual_skd",
            software_versions=dual_skd.__version__,
            device_serial_number=sha256,
            content_qualification="RESEARCH",
            content_date=created.date(),
            content_time=created.time().replace(microsecond=0),
            is_complete=True,
            specific_character_set=None,  # highdicom refuses the empty first value of Japanese and Korean files
            coding_schemes=[
                CodingSchemeIdentificationItem(
                    SCHEME,
                    name="Classes of dual-skd models: a class's code is its name",
                    version=dual_skd.__version__,
                    responsible_organization=MANUFACTURER,
                )
            ],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of highdicom, on headers outside the standard
        raise InputError(
            f"The study of {images[0].files[0]} gets no report, its header isn't what the standard asks for "
            f"({type(error).__name__}: {error}); mend the header."
        ) from error
    # Unicode only where the images' own character set may not hold the names of classes
    kept = evidence[0].get("SpecificCharacterSet") if all(text.isascii() for text in texts) else "ISO_IR 192"
    if kept is not None:
        report.SpecificCharacterSet = kept
    report.InstanceCreationDate, report.InstanceCreationTime = report.ContentDate, report.ContentTime
    report.ContributingEquipmentSequence[-1].ContributionDateTime = created.strftime("%Y%m%d%H%M%S")  # of highdicom
    return report


class StructuredReportWriter:
    """Handler of an evaluator without labels that writes one report per study when all images are done.

    Only probabilities and ids are kept until then, so that memory doesn't grow with the headers. Names of files are
    the beginning of the SHA-256 of StudyInstanceUID. Images that aren't DICOM files, those without StudyInstanceUID,
    studies whose headers can't be used and images that couldn't be predicted are counted in the log.

    Args:
        folder: of the reports.
        images: locators in the order of the loader.
        info: of the model, see :func:`dual_skd.runs.model_file.load_model`.
        weights: the model's file.
        logit_divisor: temperature by which logits were divided.
        class_codes: see :class:`Classifier`.
        seed: see :func:`measurement_report`.

    Raises:
        InputError: highdicom isn't installed; see :class:`Classifier`.
    """

    def __init__(
        self,
        folder: str | Path,
        images: Sequence[str],
        info: Mapping[str, Any],
        weights: str | Path,
        *,
        logit_divisor: float = 1.0,
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
        self.classifier = Classifier(
            info["class_names"],
            weights,
            info.get("multi_label", False),
            parameters=[
                f"network: {json.dumps(info['architecture'])}",
                f"preprocessing: {json.dumps(info.get('preprocessing', {}))}",
                f"logits divided by the temperature {logit_divisor:.6g}",
            ],
            class_codes=class_codes or {},
        )

        self._rows: list[list[float]] = []  # empty for an image that couldn't be used

    def attach(self, engine: Engine) -> None:
        """Registers the handler; postprocessing has to turn logits into probabilities before."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._rows = []

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
            replace_file(self.folder / f"{name}.dcm", partial(report.save_as, enforce_file_format=True))
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


# --- content ----------------------------------------------------------------------------------------------------------


def _content(
    images: Sequence[Classified],
    opened: Sequence[Sequence[Dataset]],
    classifier: Classifier,
    sha256: str,
    seed: str | None,
) -> Sequence[Dataset]:
    """The tree of a report: a container with the context, the groups and the notice."""
    from highdicom import sr

    name = f"dual-skd light classifier {sha256[:12]}"
    algorithm = sr.AlgorithmIdentification(
        name=name,
        version=dual_skd.__version__,
        parameters=[f"SHA-256 of the weights: {sha256}", *classifier.parameters],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )
    device = sr.DeviceObserverIdentifyingAttributes(
        # one device per set of weights
        uid=generate_uid(entropy_srcs=["dual_skd device", sha256]),
        name=name,
        manufacturer_name=MANUFACTURER,
        model_name="dual_skd",
        serial_number=sha256,
    )
    procedures = {
        PROCEDURES.get(str(header.get("Modality")).strip().upper(), codes.SCT.ImagingProcedure)
        for each in opened
        for header in each
    }
    concepts = classifier.coded()
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=sorted(procedures, key=lambda code: code.value),
        imaging_measurements=[
            _group(number, image, headers, classifier, concepts, algorithm, seed)
            for number, (image, headers) in enumerate(zip(images, opened, strict=True), start=1)
        ],
    )
    report[0].ContentSequence.append(
        sr.TextContentItem(codes.DCM.Comment, NOTICE, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    )
    return report


def _group(
    number: int,
    image: Classified,
    headers: Sequence[Dataset],
    classifier: Classifier,
    concepts: Sequence[CodedConcept],
    algorithm: Sequence[Dataset],
    seed: str | None,
) -> MeasurementsAndQualitativeEvaluations:
    from highdicom import sr

    measurements = []
    for concept, probability in zip(concepts, image.probabilities, strict=True):
        measurement = sr.Measurement(codes.DCM.Probability, float(f"{probability:.6g}"), codes.UCUM.NoUnits)
        modifier = sr.CodeContentItem(
            codes.DCM.Finding, concept, relationship_type=sr.RelationshipTypeValues.HAS_CONCEPT_MOD
        )
        measurement[0].ContentSequence = sr.ContentSequence([modifier])  # TID 300, row 2, which highdicom lacks
        measurements.append(measurement)
    predicted = sr.CodedConcept("predicted-class", SCHEME, "Predicted class")
    # DICOM counts from 1, and numbers the frames of multi-frame files only
    frames = [image.frame + 1] if image.frame is not None and frames_of(headers[0]) > 1 else None
    instances = [str(header.SOPInstanceUID) for header in headers]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=_uid(seed, "group", *instances, str(frames)), identifier=f"Classification {number}"
        ),
        algorithm_id=algorithm,
        measurements=measurements,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(predicted, concepts[index]) for index in classifier.predicted(image.probabilities)
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID, frames) for header in headers
        ],
    )


def _uid(seed: str | None, *parts: str) -> str:
    return generate_uid(entropy_srcs=[seed, *map(str, parts)] if seed else None)


def _plain(name: str) -> str:
    # a backslash would begin another value
    return " ".join(name.replace("\\", "/").split())


# --- sources ----------------------------------------------------------------------------------------------------------


def _files_of(image: str) -> tuple[list[str], int | None] | None:
    """The DICOM files behind a locator, and the place in the file of the frame it names; None for other formats."""
    path, fragment = split_locator(image)
    if path.is_dir():
        return [header.path for header in series_in(path, fragment).headers], None
    if not is_dicom(path):
        return None
    return [str(path)], frame_in_file(path, int(fragment.removeprefix("frame="))) if fragment else None


def _opened(file: str | Path) -> Dataset:
    """What a reference needs of a file's header."""
    with failures_named(file):
        header = open_dicom(file, [*_REFERENCED, *_SIZE])
    if missing := [keyword for keyword in _REFERENCED[:4] if not header.get(keyword)]:
        raise InputError(f"{file} has no {' and no '.join(missing)}, so no report can refer to it; mend its header.")
    return header


def _whole_header(file: str | Path) -> Dataset:
    """The header that patient and study are copied from, with what may be empty (type 2) added where it is absent."""
    with failures_named(file):
        header = pydicom.dcmread(file, force=True, stop_before_pixels=True)
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, None)
        if header.PatientSex not in ("M", "F", "O"):  # the only values of the standard
            header.PatientSex = None
    return header
