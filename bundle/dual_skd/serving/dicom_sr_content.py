# SPDX-License-Identifier: Apache-2.0
"""The content of a DICOM Structured Report on classified images.

It is a Measurement Report (PS3.16, TID 1500) with one Measurement Group (TID 1501) per image or series that was
classified: its source images and frames, one probability (TID 300) per class, the class that was predicted, and the
algorithm (TID 4019) with the checksum of its weights. Codes of the standard are used where they mean the same:

===============================  ==================================================================================
statement                        code
===============================  ==================================================================================
the number                       (122157, DCM, "Probability"), unit (1, UCUM, "no units")
of which class it is             concept modifier (121071, DCM, "Finding"), its value the class
the predicted class              (predicted-class, 99DUALSKD, "Predicted class"): the standard has no code for just
                                 this; a Finding would claim that it is there
a class                          the caller's code, such as (233604007, SCT, "Pneumonia"); without one its name in
                                 99DUALSKD, as a name alone leaves open what those who labelled meant
===============================  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

import dual_skd
from dual_skd.data.reading.dicom_file import frames_of
from dual_skd.errors import InputError
from dual_skd.utils.files import sha256_of

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept, MeasurementsAndQualitativeEvaluations

SCHEME = "99DUALSKD"  # PS3.16, 8: designators of private coding schemes begin with 99
NOTICE = "For research use only. Not a medical device: no clinical decision may rest on this report."
MANUFACTURER = "The dual-skd developers"
PROCEDURES = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "NM": codes.cid100.NMUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
    **dict.fromkeys(("CR", "DX", "RG"), codes.cid100.XRUnspecifiedBodyRegion),
}


@dataclass(frozen=True)
class Classified:
    """One image or series with the probabilities of its classes.

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
    """The algorithm as a report describes it.

    Args:
        class_names: in the order of the probabilities.
        weights: the file of the weights.
        multi_label: every class above one half is predicted, instead of the most probable one.
        parameters: further sentences, one each.
        class_codes: class name -> (code, coding scheme, meaning), where there is a code for what the class means.

    Raises:
        InputError: a code is of no class, or isn't three texts.
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

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file of the weights."""
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
            plain = " ".join(name.replace("\\", "/").split())  # a backslash would begin another value
            code, scheme, meaning = self.class_codes.get(name, (plain, SCHEME, plain))
            found.append(CodedConcept(code, scheme, meaning[:64]))
        return found


def report_content(
    images: Sequence[Classified], headers: Sequence[Sequence[Dataset]], classifier: Classifier, seed: str | None
) -> Dataset:
    """The tree of a report: a container with the context, a group per image and the notice.

    Args:
        images: what was classified.
        headers: those of the files of each image.
        classifier: the algorithm.
        seed: of :func:`new_uid`.
    """
    from highdicom import sr

    sha256 = classifier.sha256
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
    modalities = {str(header.get("Modality")).strip().upper() for each in headers for header in each}
    procedures = {PROCEDURES.get(modality, codes.SCT.ImagingProcedure) for modality in modalities}
    concepts = classifier.coded()
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=sorted(procedures, key=lambda code: code.value),
        imaging_measurements=[
            _group(number, image, of_image, classifier, concepts, algorithm, seed)
            for number, (image, of_image) in enumerate(zip(images, headers, strict=True), start=1)
        ],
    )
    report[0].ContentSequence.append(
        sr.TextContentItem(codes.DCM.Comment, NOTICE, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    )
    return report[0]


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
            uid=new_uid(seed, "group", *instances, str(frames)), identifier=f"Classification {number}"
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


def new_uid(seed: str | None, *parts: str) -> str:
    """A new UID; the same one for the same seed and parts, if there is a seed."""
    return generate_uid(entropy_srcs=[seed, *map(str, parts)] if seed else None)
