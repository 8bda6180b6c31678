# SPDX-License-Identifier: Apache-2.0
"""A PACS of this computer: images go in and out, and the reports of inference come back into the study of their image.

apt-get install orthanc orthanc-dicomweb dcmtk
python -m pytest tests/bundle/test_pacs.py
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.sr.codedict import codes

from dual_skd.data import write_demo

sr = pytest.importorskip("highdicom.sr")

DICOM_WEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = [name for name in ("Orthanc", "storescu") if shutil.which(name) is None]
MISSING += [] if DICOM_WEB.is_file() else ["orthanc-dicomweb"]
pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


class Pacs:
    """Orthanc on free ports of this computer, ended by its id."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as one, socket.socket() as other:
            for free in (one, other):
                free.bind(("127.0.0.1", 0))
            self.http, self.dicom = one.getsockname()[1], other.getsockname()[1]
        content = {
            "Name": "test", "StorageDirectory": str(folder / "images"), "IndexDirectory": str(folder / "images"),
            "HttpPort": self.http, "DicomPort": self.dicom, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "Plugins": [str(DICOM_WEB)],
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(content))
        self.log = folder / "orthanc.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(["Orthanc", folder / "orthanc.json"], stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Pacs:
        end = time.monotonic() + 60
        while True:
            try:
                self.ask("/system")
                return self
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    raise RuntimeError(f"no Orthanc: {self.log.read_text()[-2000:]}") from error
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def ask(self, path: str, content: bytes | None = None, **headers: str) -> bytes:
        """The answer to a GET, or with content to a POST."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", content, {"Accept": "application/dicom+json, */*"} | headers
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def find(self, **query: str) -> list[dict[str, Any]]:
        """Instances by Orthanc's REST interface."""
        asked = {"Level": "Instance", "Query": query, "Expand": True}
        return json.loads(self.ask("/tools/find", json.dumps(asked).encode()))

    def store(self, *files: Path) -> None:
        """C-STORE."""
        subprocess.run(["storescu", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom), *files], check=True, timeout=60)

    def store_by_web(self, file: Path) -> None:
        """STOW-RS."""
        kind = 'multipart/related; type="application/dicom"; boundary=part'
        body = b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n--part--\r\n"
        self.ask("/dicom-web/studies", body, **{"Content-Type": kind})


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with Pacs(tmp_path_factory.mktemp("pacs")) as running:
        yield running


def test_reports_go_back_into_the_study_of_their_image(pacs, trained, tmp_path, run):
    sent = write_demo(tmp_path / "demo", counts={"train": 6, "val": 0, "test": 0}) / "images"
    pacs.store(*sorted(sent.iterdir()))
    images = pacs.find(Modality="DX")
    assert len(images) == len(list(sent.iterdir()))
    fetched = tmp_path / "fetched"
    for image in images:
        fetched.mkdir(exist_ok=True)
        (fetched / image["ID"]).write_bytes(pacs.ask(f"/instances/{image['ID']}/file"))
    finished = shutil.copytree(trained, tmp_path / "run")
    run("inference.json", output_dir=str(finished), dataset_dir=str(fetched), dicom_sr=True)
    by_store, *by_web = sorted((finished / "sr").iterdir())
    pacs.store(by_store)
    for report in by_web:
        pacs.store_by_web(report)

    stored = pacs.find(Modality="SR")
    studies = {pydicom.dcmread(path).StudyInstanceUID for path in sent.iterdir()}
    assert len(stored) == len(studies) and by_web
    for study in studies:
        (row,) = json.loads(pacs.ask(f"/dicom-web/studies/{study}/series?Modality=SR"))  # QIDO-RS
        assert row["0020000D"]["Value"] == [study]
        assert json.loads(pacs.ask(f"/dicom-web/studies?StudyInstanceUID={study}"))[0]["00080061"]["Value"] != ["SR"]
    kept = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path).StudyInstanceUID for path in fetched.iterdir()}
    for entry in stored:
        content = pacs.ask(f"/instances/{entry['ID']}/file")
        plain = pydicom.dcmread(io.BytesIO(content))
        report = sr.srread(io.BytesIO(content))
        for group in report.content.get_image_measurement_groups():
            (source,) = group.source_images
            assert kept[source.referenced_sop_instance_uid] == plain.StudyInstanceUID
            values = [item.value for item in sr.utils.find_content_items(group[0], name=codes.DCM.Probability)]
            assert sum(values) == pytest.approx(1, abs=1e-5)
