# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import hashlib
import shutil

import pydicom
import pytest
from pydicom.sr.codedict import codes

sr = pytest.importorskip("highdicom.sr")


def test_inference_writes_a_report_per_study_with_the_numbers_of_its_table_when_asked(trained, tmp_path, run, demo):
    finished = shutil.copytree(trained, tmp_path / "run")
    run("inference.json", output_dir=str(finished), dataset_dir=str(demo / "images"))
    assert not (finished / "sr").exists()
    run("inference.json", output_dir=str(finished), dataset_dir=str(demo / "images"), dicom_sr=True)
    with (finished / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected: dict[str, dict[str, dict]] = {}
    for row in rows:
        image = pydicom.dcmread(row["image"])
        expected.setdefault(image.StudyInstanceUID, {})[image.SOPInstanceUID] = row
    names = {hashlib.sha256(study.encode()).hexdigest()[:16]: study for study in expected}
    found = {path.stem: sr.srread(path) for path in (finished / "sr").iterdir()}
    assert found.keys() == names.keys() and 1 < len(found) < len(rows)
    for name, report in found.items():
        groups = report.content.get_image_measurement_groups()
        sources = [group.source_images[0].referenced_sop_instance_uid for group in groups]
        assert set(sources) == expected[names[name]].keys() and len(set(sources)) == len(sources)
        for group, source in zip(groups, sources, strict=True):
            row = expected[names[name]][source]
            for item in sr.utils.find_content_items(group[0], name=codes.DCM.Probability):
                of_class = item.ContentSequence[0].value.meaning
                assert item.value == pytest.approx(float(row[f"p_{of_class}"]), abs=1e-6)
            answer = sr.utils.find_content_items(group[0], name=sr.CodedConcept("predicted-class", "99DUALSKD", "x"))
            assert [item.value.meaning for item in answer] == [row["predicted"]]
