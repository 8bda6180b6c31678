# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's own server, with the packed bundle: images go in by HTTP, class scores come out.

python -m scripts.release.monailabel_env label-env
DUAL_SKD_MONAILABEL=label-env python -m pytest tests/bundle/test_monai_label_live.py
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image

from dual_skd.data import write_demo
from dual_skd.data.demo import CLASSES_2D, CLASSES_3D

ENVIRONMENT = os.environ.get("DUAL_SKD_MONAILABEL", "")
pytestmark = [
    pytest.mark.monailabel,
    pytest.mark.skipif(
        not ENVIRONMENT, reason="DUAL_SKD_MONAILABEL names no environment of scripts.release.monailabel_env"
    ),
]  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
IMAGES, VOLUMES = "dual_skd_classification", "dual_skd_volumes_classification"
NOWHERE = "http://127.0.0.1:9"  # the discard port: whatever asks the network fails at once
STARTING, TRAINING = 300, 600  # seconds, on a loaded computer


class Server:
    """An app of MONAI Label on a free port of this computer, ended by its id."""

    def __init__(self, app: Path, studies: Path, models: str = f"{IMAGES},{VOLUMES}") -> None:
        python = Path(ENVIRONMENT).absolute() / "bin" / "python"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": "",
            "http_proxy": NOWHERE, "https_proxy": NOWHERE, "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        options = ["--app", str(app), "--studies", str(studies), "--host", "127.0.0.1", "--port", str(self.port),
                   "--conf", "models", models, "--conf", "zoo_source", "local"]  # fmt: skip
        self.log = app / "server.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [str(python), "-m", "monailabel.main", "start_server", *options],
                cwd=app.parent, env=env, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> Server:
        try:
            end = time.monotonic() + STARTING
            while True:
                try:
                    self.ask("GET", "/info/")
                    return self
                except OSError as error:
                    if self.process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"no server: {self.log.read_text()[-3000:]}") from error
                time.sleep(0.5)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        headers = {"Content-Type": kind} if body is not None else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return json.loads(answer.read())

    def send(self, method: str, path: str, field: str, file: Path) -> Any:
        """Sends a file as a form does (RFC 7578)."""
        head = f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="{file.name}"\r\n\r\n'
        return self.ask(
            method, path, head.encode() + file.read_bytes() + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
        )  # fmt: skip


def scores(answer: dict) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in answer["prediction"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    counts = {"train": 12, "val": 6, "test": 6}
    return {
        IMAGES: write_demo(folder / "images", counts=counts),
        VOLUMES: write_demo(folder / "volumes", spatial_dims=3, counts=counts),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory, run, data) -> dict[str, Path]:
    """Finished runs of the two kinds."""
    folder = tmp_path_factory.mktemp("runs")
    shared = {"epochs": 1, "batch_size": 6, "patient_pattern": None}
    run("train.json", **shared, dataset_dir=str(data[IMAGES]), output_dir=str(folder / IMAGES), image_size=32)
    run(
        "train.json", "volume.json", **shared, dataset_dir=str(data[VOLUMES]), output_dir=str(folder / VOLUMES),
        image_size=[16, 16, 8],
    )  # fmt: skip
    return {name: folder / name for name in (IMAGES, VOLUMES)}


@pytest.fixture(scope="module")
def app(tmp_path_factory, runs) -> Path:
    """The stock app with both bundles, as a user gets them: packed, unzipped, and the second one's folder renamed."""
    folder = tmp_path_factory.mktemp("label")
    models = folder / "monaibundle" / "model"
    stock = Path(ENVIRONMENT).absolute() / "monailabel" / "sample-apps" / "monaibundle"
    shutil.copytree(stock, models.parent)
    models.mkdir(exist_ok=True)
    for name, output in runs.items():
        command = [sys.executable, "-m", "scripts.release.package_bundle", "--output", str(folder / name),
                   "--models", str(output / "models")]  # fmt: skip
        subprocess.run(command, check=True, cwd=ROOT)
        with zipfile.ZipFile(next((folder / name).glob("*.zip"))) as archive:
            archive.extractall(folder / name)
        (folder / name / IMAGES).rename(models / name)
    return models.parent


@pytest.fixture(scope="module")
def studies(tmp_path_factory, data) -> Path:
    """A store of MONAI Label: phantoms as PNG, and one volume."""
    folder = tmp_path_factory.mktemp("studies")
    for path in sorted((data[IMAGES] / "images").glob("*.dcm")):
        Image.fromarray((pydicom.dcmread(path).pixel_array >> 4).astype("uint8")).save(folder / f"{path.stem}.png")
    shutil.copy(min((data[VOLUMES] / "images").iterdir()), folder / "volume.nii.gz")
    return folder


@pytest.fixture
def plain(run, tmp_path):
    """Probabilities that plain inference gives for one file."""

    def infer(model: Path, image: Path) -> dict[str, float]:
        output = tmp_path / "plain"
        shutil.copytree(model, output / "models", dirs_exist_ok=True)
        run("inference.json", output_dir=str(output), dataset_dir=str(image))
        with (output / "predictions.csv").open() as file:
            (row,) = csv.DictReader(file)
        return {key.removeprefix("p_").lower(): float(value) for key, value in row.items() if key.startswith("p_")}

    return infer


def test_scores_with_class_names_come_back_equal_to_plain_inference(app, studies, data, runs, plain):
    picture = min(studies.glob("*.png"))
    dicom = min((data[IMAGES] / "images").glob("*.dcm"))
    volume = studies / "volume.nii.gz"
    with Server(app, studies) as server:
        models = server.ask("GET", "/info/")["models"]
        assert {name: (model["type"], model["dimension"]) for name, model in models.items()} == {
            IMAGES: ("classification", 2), VOLUMES: ("classification", 3),
        }  # fmt: skip
        assert models[IMAGES]["labels"] == {name: place for place, name in enumerate(sorted(CLASSES_2D))}
        answers = [
            (IMAGES, picture, server.ask("POST", f"/infer/{IMAGES}?image={picture.stem}")),
            (VOLUMES, volume, server.ask("POST", f"/infer/{VOLUMES}?image=volume")),
            (IMAGES, dicom, server.send("POST", f"/infer/{IMAGES}", "file", dicom)),
        ]
    for name, image, answer in answers:
        expected = plain(runs[name] / "models", image)
        assert set(expected) == {label.lower() for label in (CLASSES_2D if name == IMAGES else CLASSES_3D)}
        assert scores(answer) == pytest.approx(expected, abs=1e-4), image.name


def test_training_on_labels_of_the_store_replaces_the_model_that_is_served(app, studies, data, plain):
    served = app / "model" / IMAGES / "models"
    before = (served / "model.pt").read_bytes()
    pictures = sorted(studies.glob("*.png"))
    with (data[IMAGES] / "datalist.csv").open() as file:
        names = {Path(row["image"]).stem: row["label"] for row in csv.DictReader(file)}
    with Server(app, studies) as server:
        for picture in pictures:
            label = studies.parent / f"{picture.stem}.json"
            label.write_text(json.dumps({"label": names[picture.stem]}))
            server.send("PUT", f"/datastore/label?image={picture.stem}&tag=final", "label", label)
        order = {"max_epochs": 1, "device": "cpu", "multi_gpu": False}
        server.ask("POST", f"/train/{IMAGES}", json.dumps(order).encode())
        end = time.monotonic() + TRAINING
        while (task := server.ask("GET", "/train/"))["status"] in ("SUBMITTED", "RUNNING"):
            assert time.monotonic() < end, task
            time.sleep(1)
        assert task["status"] == "DONE", "\n".join(task["details"])
    (trained,) = (served.parent / "runs").iterdir()
    record = json.loads((trained / "run.json").read_text())
    assert record["config"]["epochs"] == 1 and record["config"]["image_size"] == 32
    parts = json.loads((trained / "datalist.json").read_text())
    assert sum(len(parts[part]) for part in ("training", "validation", "left_out")) == len(pictures)
    after = (served / "model.pt").read_bytes()
    assert after != before and after == (trained / "models" / "model.pt").read_bytes()
    with Server(app, studies) as server:  # a server reads temperature and class names when it starts
        answer = server.ask("POST", f"/infer/{IMAGES}?image={pictures[0].stem}")
    assert scores(answer) == pytest.approx(plain(served, pictures[0]), abs=1e-4)


def test_the_bundles_own_app_suggests_explains_and_answers_in_batches(tmp_path, app, studies):
    """The app of scripts/release/monailabel_app, as docs/howto/label_tool.md sets it up."""
    own, store = tmp_path / "own", tmp_path / "store"
    shutil.copytree(app / "model" / IMAGES, own / "model" / IMAGES)
    shutil.copy(ROOT / "scripts" / "release" / "monailabel_app" / "main.py", own)
    store.mkdir()
    for path in sorted(studies.glob("*.png"))[:6]:
        shutil.copy(path, store)
    first = min(store.glob("*.png"))
    shutil.copy(first, store / "copy.png")
    (store / "bad.png").write_text("no picture")
    with Server(own, store, IMAGES) as server:
        assert "suggest" in server.ask("GET", "/info/")["strategies"]
        given = [server.ask("POST", "/activelearning/suggest") for _ in range(6)]
        assert [one["rank"] for one in given] == [1, 2, 3, 4, 5, 6]
        ids = {one["id"] for one in given}
        assert "bad" not in ids and len(ids & {"copy", first.stem}) == 1  # one of the two that are equal
        assert refusal(server, f"/infer/{IMAGES}?image=bad") == (422, f"{store.resolve() / 'bad.png'} can't be read")
        assert refusal(server, f"/infer/{IMAGES}?image=nobody") == (404, "The store has no image 'nobody'")
        server.ask("POST", f"/batch/infer/{IMAGES}")
        end = time.monotonic() + TRAINING
        while (task := server.ask("GET", "/batch/infer"))["status"] in ("SUBMITTED", "RUNNING"):
            assert time.monotonic() < end, task
            time.sleep(1)
        assert task["status"] == "DONE", "\n".join(task["details"])
        answer = server.ask("POST", f"/infer/{IMAGES}?image={first.stem}")
    kept = json.loads((store / "labels" / "original" / f"{first.stem}.json").read_text())
    assert scores(kept) == pytest.approx(scores(answer), abs=1e-6)
    assert not (store / "labels" / "original" / "bad.json").exists()


def refusal(server: Server, path: str) -> tuple[int, str]:
    """The status of a request that fails, and the beginning of the sentence in its answer."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.ask("POST", path)
    return caught.value.code, re.split("[:;]", json.loads(caught.value.read())["detail"])[0]
