# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import torch
from dicom_files import write_dicom, write_series
from ignite.engine import Engine
from pydicom.sr.codedict import codes
from pydicom.uid import MultiFrameGrayscaleByteSecondaryCaptureImageStorage

import dual_skd
from dual_skd.data import write_demo
from dual_skd.errors import InputError
from dual_skd.serving import dicom_sr
from dual_skd.serving.dicom_sr import Classified, Classifier, StructuredReportWriter, measurement_report
from dual_skd.serving.dicom_sr_content import NOTICE

sr = pytest.importorskip("highdicom.sr")

CLASSES = ["interstitial", "nodule", "normal"]
PREDICTED = sr.CodedConcept("predicted-class", "99DUALSKD", "Predicted class")
WHEN = datetime(2026, 1, 2, 3, 4, 5)
# what a study's header holds beside what dicom_files writes
STUDY = {"StudyInstanceUID": "1.2.9", "PatientName": "Doe^Jo", "PatientBirthDate": "19700102", "PatientSex": "F"}


@pytest.fixture(scope="module")
def xrays(tmp_path_factory) -> list[str]:
    """Two images of one generated patient, one study."""
    folder = write_demo(tmp_path_factory.mktemp("demo") / "demo", counts={"train": 6, "val": 0, "test": 0})
    files = sorted(map(str, (folder / "images").iterdir()))
    return next([file, f"{file[:-6]}_2.dcm"] for file in files if f"{file[:-6]}_2.dcm" in files)


@pytest.fixture
def classifier(tmp_path) -> Classifier:
    (tmp_path / "model.pt").write_bytes(b"weights")
    return Classifier(CLASSES, tmp_path / "model.pt", parameters=["temperature 1.5"])


def read_back(report, path: Path) -> sr.ComprehensiveSR:
    report.save_as(path, enforce_file_format=True)
    return sr.srread(path)


def groups(report) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    return report.content.get_image_measurement_groups()


def probabilities(group) -> dict[str, float]:
    """Meaning of the class -> probability; the unit is checked on the way."""
    found = {}
    for item in sr.utils.find_content_items(group[0], name=codes.DCM.Probability):
        (modifier,) = item.ContentSequence
        assert modifier.name == codes.DCM.Finding and modifier.RelationshipType == "HAS CONCEPT MOD"
        assert item.unit == codes.UCUM.NoUnits and item.unit.value == "1"
        found[modifier.value.meaning] = item.value
    return found


def predicted(group) -> list[str]:
    return [item.value.meaning for item in sr.utils.find_content_items(group[0], name=PREDICTED)]


def texts(report, concept) -> list[str]:
    return [item.value for item in sr.utils.find_content_items(report.content[0], name=concept, recursive=True)]


def test_every_image_has_a_group_with_its_probabilities_answer_and_source(tmp_path, xrays, classifier):
    given = [[0.1, 0.7, 0.2], [1e-7, 0.25, 0.7499999]]
    images = [Classified([file], values) for file, values in zip(xrays, given, strict=True)]
    report = read_back(measurement_report(images, classifier), tmp_path / "report.dcm")
    assert report.SOPClassUID == pydicom.uid.ComprehensiveSRStorage
    for group, file, values, answer in zip(groups(report), xrays, given, ["nodule", "normal"], strict=True):
        assert probabilities(group) == pytest.approx(dict(zip(CLASSES, values, strict=True)), rel=1e-5)
        assert predicted(group) == [answer]
        (source,) = group.source_images
        image = pydicom.dcmread(file)
        assert source.referenced_sop_instance_uid == image.SOPInstanceUID
        assert source.referenced_sop_class_uid == image.SOPClassUID
        assert source.referenced_frame_numbers is None
    uids = {(study, series, instance) for study, series, instance, _ in report.get_evidence()}
    assert uids == {(d.StudyInstanceUID, d.SeriesInstanceUID, d.SOPInstanceUID) for d in map(pydicom.dcmread, xrays)}
    assert texts(report, codes.DCM.ProcedureReported)[0] == codes.cid100.XRUnspecifiedBodyRegion


def test_patient_and_study_are_those_of_the_images_and_all_else_is_new(tmp_path, xrays, classifier):
    image = pydicom.dcmread(xrays[0])
    reports = [measurement_report([Classified(xrays[:1], [0.2, 0.3, 0.5])], classifier) for _ in range(2)]
    read = read_back(reports[0], tmp_path / "report.dcm")
    for keyword in ("PatientID", "PatientName", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"):
        assert read[keyword].value == image[keyword].value
    own = {read.SOPInstanceUID, read.SeriesInstanceUID, image.SOPInstanceUID, image.SeriesInstanceUID}
    assert len(own) == 4 and reports[1].SOPInstanceUID not in own
    assert read.Modality == "SR" and "PixelData" not in read and "Rows" not in read


def test_it_says_by_which_weights_and_that_it_is_no_diagnosis(tmp_path, xrays, classifier):
    report = measurement_report([Classified(xrays[:1], [0.2, 0.3, 0.5])], classifier)
    report = read_back(report, tmp_path / "report.dcm")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert texts(report, codes.DCM.AlgorithmName) == [f"dual-skd light classifier {digest[:12]}"]
    assert texts(report, codes.DCM.AlgorithmVersion) == [dual_skd.__version__]
    assert texts(report, codes.DCM.AlgorithmParameters) == [f"SHA-256 of the weights: {digest}", "temperature 1.5"]
    assert texts(report, codes.DCM.Comment) == [NOTICE]
    assert report.ContentQualification == "RESEARCH"
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99DUALSKD"


def test_a_frame_is_referred_to_as_dicom_counts_and_only_where_there_are_several(tmp_path, classifier):
    cine = write_dicom(
        tmp_path / "cine.dcm", np.zeros((5, 8, 8), np.uint8), NumberOfFrames=5, **STUDY,
        SOPClassUID=MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    )  # fmt: skip
    assert dicom_sr._files_of(f"{cine}#frame=2") == ([str(cine)], 2)
    single = write_dicom(tmp_path / "single.dcm", np.zeros((8, 8), np.uint8), **STUDY)
    images = [Classified([file], [0.2, 0.3, 0.5], frame) for file, frame in ((cine, 2), (single, 0), (cine, None))]
    report = read_back(measurement_report(images, classifier), tmp_path / "report.dcm")
    assert [group.source_images[0].referenced_frame_numbers for group in groups(report)] == [[3], None, None]


def test_a_series_is_one_group_that_refers_to_every_slice(tmp_path, classifier):
    folder = write_series(tmp_path / "series", np.zeros((6, 8, 8), np.int16), **STUDY)
    files, frame = dicom_sr._files_of(str(folder))
    assert frame is None
    report = read_back(measurement_report([Classified(files, [0.2, 0.3, 0.5])], classifier), tmp_path / "report.dcm")
    (group,) = groups(report)
    found = {source.referenced_sop_instance_uid for source in group.source_images}
    assert found == {pydicom.dcmread(file).SOPInstanceUID for file in folder.iterdir()} and len(found) == 6


def test_with_several_labels_per_image_every_class_above_one_half_is_an_answer(tmp_path, xrays, classifier):
    several = Classifier(CLASSES, classifier.weights, multi_label=True)
    images = [Classified(xrays[:1], [0.9, 0.6, 0.1]), Classified(xrays[1:], [0.1, 0.5, 0.2])]
    report = read_back(measurement_report(images, several), tmp_path / "report.dcm")
    assert [predicted(group) for group in groups(report)] == [["interstitial", "nodule"], []]


def test_a_class_takes_the_code_that_the_user_knows_for_it_and_else_its_name(tmp_path, xrays, classifier):
    coded = Classifier(CLASSES, classifier.weights, class_codes={"nodule": ["27925004", "SCT", "Nodule"]})
    report = measurement_report([Classified(xrays[:1], [0.1, 0.7, 0.2])], coded)
    (group,) = groups(read_back(report, tmp_path / "report.dcm"))
    items = sr.utils.find_content_items(group[0], name=codes.DCM.Probability)
    classes = [item.ContentSequence[0].value for item in items]
    assert [(one.value, one.scheme_designator) for one in classes] == [
        ("interstitial", "99DUALSKD"), ("27925004", "SCT"), ("normal", "99DUALSKD"),
    ]  # fmt: skip
    assert predicted(group) == ["Nodule"]
    with pytest.raises(InputError, match="'pneumonia': 'J18'"):
        Classifier(CLASSES, classifier.weights, class_codes={"pneumonia": "J18"})


def test_long_names_and_backslashes_stay_within_what_a_code_may_be(tmp_path, xrays, classifier):
    names = ["either\\or", "x" * 70, "a name of more than sixteen characters"]
    report = measurement_report([Classified(xrays[:1], [0.1, 0.7, 0.2])], Classifier(names, classifier.weights))
    (group,) = groups(read_back(report, tmp_path / "report.dcm"))
    assert list(probabilities(group)) == ["either/or", "x" * 64, names[2]]
    items = sr.utils.find_content_items(group[0], codes.DCM.Probability)
    assert [item.ContentSequence[0].value.value for item in items] == ["either/or", names[1], names[2]]


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "김^희중"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        (None, "Doe^Jo"),
    ],
)
def test_the_character_set_of_the_images_is_kept(tmp_path, classifier, charset, name):
    file = write_dicom(
        tmp_path / "image.dcm",
        np.zeros((8, 8), np.uint8),
        SpecificCharacterSet=charset,
        **STUDY | {"PatientName": name},
    )
    read_back(measurement_report([Classified([file], [0.2, 0.3, 0.5])], classifier), tmp_path / "report.dcm")
    read = pydicom.dcmread(tmp_path / "report.dcm")
    assert read.get("SpecificCharacterSet") == charset
    assert str(read.PatientName) == name


def test_names_of_classes_outside_it_make_the_report_unicode(tmp_path, classifier):
    file = write_dicom(
        tmp_path / "image.dcm", np.zeros((8, 8), np.uint8), SpecificCharacterSet="ISO_IR 100",
        **STUDY | {"PatientName": "Müller^Jörg"},
    )  # fmt: skip
    unicode = Classifier(["正常", "肺炎"], classifier.weights)
    report = read_back(measurement_report([Classified([file], [0.2, 0.8])], unicode), tmp_path / "report.dcm")
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert predicted(groups(report)[0]) == ["肺炎"] and str(report.PatientName) == "Müller^Jörg"


def test_the_same_seed_gives_the_same_bytes(tmp_path, xrays, classifier):
    contents = []
    for seed in ("a", "a", "b"):
        report = measurement_report([Classified(xrays, [0.2, 0.3, 0.5])], classifier, seed=seed, created=WHEN)
        read_back(report, tmp_path / "report.dcm")
        contents.append((tmp_path / "report.dcm").read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert (report.ContentDate, report.ContentTime) == (WHEN.date(), WHEN.time())


def test_files_of_two_patients_or_studies_make_no_report(tmp_path, classifier):
    one, patient, study = (
        write_dicom(tmp_path / f"{index}.dcm", np.zeros((8, 8), np.uint8), **STUDY | tags)
        for index, tags in enumerate([{}, {"PatientID": "q"}, {"StudyInstanceUID": "1.2.10"}])
    )
    for other, word in ((patient, "patient"), (study, "study")):
        with pytest.raises(InputError, match=f"one {word} in a report, found 2"):
            measurement_report([Classified([one, other], [0.2, 0.3, 0.5])], classifier)


def test_headers_that_say_little_or_what_the_standard_has_no_word_for_are_enough(tmp_path, classifier):
    file = write_dicom(
        tmp_path / "image.dcm",
        np.zeros((8, 8), np.uint8),
        StudyInstanceUID="1.2.9",
        PatientID=None,
        PatientSex="Unknown",
    )
    report = read_back(measurement_report([Classified([file], [0.2, 0.3, 0.5])], classifier), tmp_path / "report.dcm")
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate"):
        assert keyword in report and not report[keyword].value


def writer(tmp_path, images, **options) -> StructuredReportWriter:
    (tmp_path / "model.pt").write_bytes(b"weights")
    info = {"class_names": ["a", "b"], "architecture": {"name": "resnet18"}}
    predictor = SimpleNamespace(info=info, path=tmp_path / "model.pt", temperature=None)
    return StructuredReportWriter(tmp_path / "sr", list(map(str, images)), predictor, **options)


def predict(handler: StructuredReportWriter, rows: list[list[float]], problems: list[str]) -> None:
    """Runs the handler on one batch as the evaluator does."""
    engine = Engine(lambda engine, batch: [{"pred": torch.tensor(row)} for row in rows])
    handler.attach(engine)
    engine.run([[{"problem": problem} for problem in problems]])


def test_the_handler_writes_a_file_per_study_and_counts_what_is_in_none(tmp_path, caplog):
    caplog.set_level("INFO")
    pixels = np.zeros((8, 8), np.uint8)
    patients = {"a1": "1.2.1", "b": "1.2.2", "a2": "1.2.1", "none": None, "clash": "1.2.2", "bad": "1.2.1"}
    files = [
        write_dicom(tmp_path / f"{name}.dcm", pixels, **STUDY | {"StudyInstanceUID": study, "PatientID": name[0]})
        for name, study in patients.items()
    ]
    (tmp_path / "picture.png").write_bytes(b"not looked at")
    problems = ["", "", "", "", "", "is damaged", ""]
    rows = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], *[[0.5, 0.5]] * 4]
    predict(writer(tmp_path, [*files, tmp_path / "picture.png"]), rows, problems)
    names = {path.name for path in (tmp_path / "sr").iterdir()}
    assert names == {hashlib.sha256(b"1.2.1").hexdigest()[:16] + ".dcm"}  # two patients share the other study's UID
    report = sr.srread(tmp_path / "sr" / names.pop())
    assert [probabilities(group) for group in groups(report)] == [
        pytest.approx({"a": 0.9, "b": 0.1}), pytest.approx({"a": 0.3, "b": 0.7}),
    ]  # fmt: skip
    assert "Structured Reports of 1 studies (2 images)" in caplog.text
    assert "one patient in a report, found 2" in caplog.text
    assert "5 images are in no report" in caplog.text


def test_without_highdicom_it_is_said_before_the_first_image(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_sr, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="need the package highdicom"):
        writer(tmp_path, [])


def test_an_independent_validator_finds_no_error(tmp_path, xrays, classifier):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) isn't on the PATH")
    images = [Classified([file], [0.1, 0.7, 0.2]) for file in xrays]
    read_back(measurement_report(images, classifier), tmp_path / "report.dcm")
    done = subprocess.run(["dciodvfy", str(tmp_path / "report.dcm")], capture_output=True, text=True)
    told = done.stderr.splitlines()
    assert "ComprehensiveSR" in told
    # it can't know a private coding scheme
    assert [line for line in told if line != "ComprehensiveSR" and "<99DUALSKD>" not in line] == []
