# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dual_skd.data import load_records
from dual_skd.data.demo import CLASSES_2D, CLASSES_3D, chest_xray, head_volume, write_demo
from dual_skd.data.reading.facts import facts_of
from dual_skd.errors import InputError

FEW_2D = {"train": 18, "val": 6, "test": 6, "second_hospital": 10}
ONE_HOSPITAL = {split: count for split, count in FEW_2D.items() if split != "second_hospital"}
FEW_3D = {"train": 3, "val": 3, "test": 3}


def digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def rows(directory: Path) -> list[dict]:
    with (directory / "datalist.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("dims", "counts"), [(2, FEW_2D), (3, FEW_3D)])
def test_equal_seeds_give_equal_files_and_other_seeds_do_not(tmp_path, dims, counts):
    one, two, other = (
        digests(write_demo(tmp_path / name, spatial_dims=dims, seed=seed, counts=counts))
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    images = [name for name in one if "images/" in name]
    assert one == two and len(images) == sum(counts.values())
    assert not any(one[name] == other.get(name) for name in images)


def test_the_2d_set_is_real_dicom_of_12_bits_with_both_photometric_interpretations(tmp_path):
    demo = write_demo(tmp_path / "demo", counts=FEW_2D)
    listed = rows(demo)
    assert Counter((row["split"], row["label"]) for row in listed) == {
        (split, label): count // 3 for split, count in ONE_HOSPITAL.items() for label in CLASSES_2D
    }
    kinds = Counter()
    for row in listed:
        dicom = pydicom.dcmread(demo / row["image"])
        kinds[dicom.PhotometricInterpretation] += 1
        assert (dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit, dicom.Modality) == (16, 12, 11, "DX")
        assert dicom.PatientID == row["patient"] and list(dicom.PixelSpacing) == [2.5, 2.5]
        assert dicom.SOPInstanceUID == dicom.file_meta.MediaStorageSOPInstanceUID
        bright = dicom.pixel_array if dicom.PhotometricInterpretation == "MONOCHROME2" else 4095 - dicom.pixel_array
        patient, view = int(row["patient"][1:]), int(Path(row["image"]).stem[-1]) - 1
        drawn = chest_xray(row["label"], anatomy_seed=patient, view_seed=view, machine=row["machine"])
        assert np.array_equal(bright, drawn)
    assert set(kinds) == {"MONOCHROME1", "MONOCHROME2"} and kinds["MONOCHROME2"] > kinds["MONOCHROME1"]


def test_no_patient_stands_in_two_splits_and_some_have_several_images(tmp_path):
    listed = rows(write_demo(tmp_path / "demo", counts=FEW_2D))
    splits = {
        patient: {r["split"] for r in listed if r["patient"] == patient} for patient in {r["patient"] for r in listed}
    }
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) < len(listed)


def test_the_second_hospital_has_other_patients_and_no_part_in_training(tmp_path):
    demo = write_demo(tmp_path / "demo", counts=FEW_2D)
    first, second = rows(demo), rows(demo / "second_hospital")
    assert not {row["patient"] for row in first} & {row["patient"] for row in second}
    assert {row["machine"] for row in first} == {"fixed", "mobile"} and {row["machine"] for row in second} == {"older"}
    assert Counter(row["label"] for row in second) == {"normal": 6, "nodule": 2, "interstitial": 2}
    assert all((demo / "second_hospital" / row["image"]).is_file() for row in second)
    data = load_records(demo)
    taken = [Path(record["image"]) for records in data.splits.values() for record in records]
    assert not any(path.is_relative_to(demo / "second_hospital") for path in taken)
    assert {split: len(records) for split, records in data.splits.items()} == ONE_HOSPITAL and not data.ignored
    assert set(data.train[0]) >= {"machine"}  # so that a report has subgroups


def test_the_3d_set_is_nifti_with_spacing_and_orientation(tmp_path):
    demo = write_demo(tmp_path / "demo", spatial_dims=3, counts=FEW_3D)
    listed = rows(demo)
    assert {row["label"] for row in listed} == set(CLASSES_3D)
    assert set(listed[0]) == {"image", "label", "split", "patient"}
    volume = nibabel.load(demo / listed[0]["image"])
    assert volume.shape == (48, 48, 24) and volume.header.get_zooms() == (4.0, 4.0, 7.0)
    assert nibabel.aff2axcodes(volume.affine) == ("R", "A", "S") and volume.get_data_dtype() == np.int16


def test_no_volume_is_taken_for_a_ct(tmp_path):
    volumes = [head_volume(label, anatomy_seed=seed) for seed in range(60) for label in CLASSES_3D]
    assert min(volume.min() for volume in volumes) >= 0
    lowest = min(volumes, key=np.min)
    nibabel.save(nibabel.Nifti1Image(lowest, np.eye(4)), tmp_path / "lowest.nii.gz")
    assert not facts_of(tmp_path / "lowest.nii.gz", spatial_dims=3).hounsfield


@pytest.mark.parametrize(
    ("classes", "draw", "number"),
    [
        (CLASSES_2D, lambda label, seed: chest_xray(label, anatomy_seed=seed), 80),
        (CLASSES_3D, lambda label, seed: head_volume(label, anatomy_seed=seed), 60),
    ],
)
def test_mean_and_deviation_of_intensity_do_not_tell_the_class(classes, draw, number):
    def features(first_seed: int) -> tuple[np.ndarray, np.ndarray]:
        images = [draw(label, first_seed + k * number + i) for k, label in enumerate(classes) for i in range(number)]
        return (
            np.array([[image.mean() / 1000, image.std() / 1000] for image in images]),
            np.repeat(np.arange(len(classes)), number),
        )

    train, labels = features(10_000)
    test, truth = features(20_000)
    for columns in ([0], [0, 1]):
        scores = LogisticRegression().fit(train[:, columns], labels).predict_proba(test[:, columns])
        assert roc_auc_score(truth, scores, multi_class="ovr") < 0.65


def changes(label: str, seed: int) -> np.ndarray:
    """What a finding adds to the chest that has none, in deviations of the image."""
    finding, normal = (chest_xray(name, anatomy_seed=seed).astype(float) for name in (label, "normal"))
    change = (finding - finding.mean()) / finding.std() - (normal - normal.mean()) / normal.std()
    return np.abs(change - np.median(change))


def test_a_nodule_is_one_small_spot_and_texture_is_in_both_lungs():
    for seed in range(20):
        assert 0 < (changes("nodule", seed) > 0.1).mean() < 0.06
        texture = changes("interstitial", seed) > 0.03
        assert min(texture[:, :64].mean(), texture[:, 64:].mean()) > 0.05


@pytest.mark.parametrize("label", ["nodule", "interstitial"])
def test_findings_go_from_plain_to_faint(label):
    strengths = [np.percentile(changes(label, seed), 99.5) for seed in range(40)]
    faint, plain = np.percentile(strengths, [10, 90])
    assert 0 < 2 * faint < plain


def test_the_second_call_reuses_the_files(tmp_path):
    demo = write_demo(tmp_path / "demo", counts=FEW_2D)
    before = (demo / "datalist.csv").stat().st_mtime_ns
    assert write_demo(tmp_path / "demo", counts=FEW_2D) == demo
    assert (demo / "datalist.csv").stat().st_mtime_ns == before


def test_other_demo_data_are_kept_as_a_run_may_have_learned_from_them(tmp_path):
    demo = write_demo(tmp_path / "demo", counts=FEW_2D)
    (demo / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in demo.rglob("*.*") if path.is_file()}
    with pytest.raises(InputError, match="another version or kind"):
        write_demo(demo, counts={"train": 3})
    assert {path: path.read_bytes() for path in demo.rglob("*.*") if path.is_file()} == before
    (demo / "demo.json").write_text("{")
    with pytest.raises(InputError, match="demo.json isn't JSON"):
        write_demo(demo, counts=FEW_2D)
    with pytest.raises(InputError, match="is a file"):
        write_demo(demo / "notes.txt", counts=FEW_2D)


def test_a_folder_with_other_content_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(InputError, match="holds no demo data"):
        write_demo(tmp_path, counts=FEW_2D)
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"
    with pytest.raises(InputError, match="2 or 3"):
        write_demo(tmp_path / "demo", spatial_dims=4)


def test_processes_that_write_the_same_demo_at_once_all_find_it_whole(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: write_demo(tmp_path / "demo", counts=FEW_2D), range(4)))
    assert set(written) == {tmp_path / "demo"} and len(rows(tmp_path / "demo")) == 30
    assert all((tmp_path / "demo" / row["image"]).is_file() for row in rows(tmp_path / "demo"))
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
