# SPDX-License-Identifier: Apache-2.0
"""The page in a browser. Its parts are tested here; its numbers where Chromium and the libraries from npm are."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import struct

import numpy as np
import pytest
import torch
from bombs import png, png_chunk
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless
from tiny_run import ARCHITECTURE, PREPROCESSING, picture

from dual_skd.data.reading.reader import read_image
from dual_skd.errors import InputError
from dual_skd.metrics.uncertainty import Conformal
from dual_skd.serving.export import browser, page_check, web_page
from dual_skd.serving.export.builder import ArtefactBuilder
from dual_skd.serving.export.formats import BY_DEFAULT, FORMATS
from dual_skd.serving.export.model_spec import model_spec, preprocessing_steps
from dual_skd.serving.export.npm import cache, modules
from dual_skd.serving.export.numpy_preprocessing import preprocess
from dual_skd.serving.prediction import PredictionRules, PredictionTable

OWN = {path.name: path.read_text(encoding="utf-8") for path in web_page.WEB.glob("*.js")}
FETCHED = cache()  # before a fixture moves it
needs_browser = pytest.mark.skipif(
    browser.find_browser() is None or not all((FETCHED / one.file).is_file() for one in web_page.WANTED),
    reason="needs Chromium, and the packages that `dual-skd export OUT --formats html` has put into the cache",
)


# --- without a browser ------------------------------------------------------------------------------------------------


def test_a_page_is_made_on_request_only():
    assert "html" in FORMATS and "html" not in BY_DEFAULT and "onnx" in BY_DEFAULT


@pytest.mark.parametrize(
    ("shape", "program", "reason"),
    [([1, 32, 32], "none", "install Chromium"), ([1, 8, 8, 8], "python3", "takes 2D models only, and this one is 3D")],
)
def test_a_page_that_cant_be_made_or_verified_is_skipped_in_words(tmp_path, monkeypatch, shape, program, reason):
    monkeypatch.setenv(browser.BROWSER, program)
    builder = ArtefactBuilder.__new__(ArtefactBuilder)
    builder.work, builder.spec = tmp_path, {"input": {"shape": ["batch", *shape]}}
    row = builder.artefact("html", torch.zeros(0), tmp_path)
    assert row["status"] == "skipped" and reason in row["reason"]
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def stubbed(tmp_path, monkeypatch):
    """A page whose libraries are empty."""

    def files_of(package, wanted):
        names = [path.replace("*", "js" if path.endswith(".*") else "index") for path in wanted]
        return dict.fromkeys([*names, "lib/iobuffer.js", "dist/libjpegturbowasm_decode.wasm"], b"MIT\n\n(c)\n\ntext")

    monkeypatch.setattr(web_page, "files_of", files_of)
    monkeypatch.setattr(web_page, "SCRIPTS", ())
    monkeypatch.setattr(web_page, "_of_onnxruntime", lambda name: f"ONNX Runtime: {name}")
    (tmp_path / "model.onnx").write_bytes(b"a network")

    def make(**recipe):
        web_page.write_page(recipe, tmp_path, tmp_path / "model.html")
        return (tmp_path / "model.html").read_text(encoding="utf-8")

    return make


def test_the_page_may_connect_to_nothing_and_holds_what_it_needs(stubbed):
    page = stubbed(**recipe_of(PREPROCESSING, ["a</script><script>alert(1)</script>", "b"]))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert {"default-src 'none'", "connect-src 'none'", "form-action 'none'"} <= {*policy.split("; ")}
    (importmap,) = re.findall(r'<script type="importmap">(.*?)</script>', page)
    assert base64.b64encode(hashlib.sha256(importmap.encode()).digest()).decode() in policy
    assert "alert(1)</script>" not in page and not re.search(r'(?:src|href)="(?!data:)', page)
    (recipe,) = re.findall(r'id="recipe">(.*?)</script>', page)
    assert json.loads(recipe)["class_names"][0] == "a</script><script>alert(1)</script>"
    (network,) = re.findall(r'id="asset-model">(.*?)</script>', page)
    assert gzip.decompress(base64.b64decode(network)) == b"a network"


def test_the_page_has_the_whole_licence_of_all_that_it_holds(stubbed):
    page = stubbed(**recipe_of(PREPROCESSING))
    licences = dict(re.findall(r"<h3>(\S+) \S+</h3>\s*<pre>(.*?)</pre>", page, re.DOTALL))
    assert {*licences} == {"dual-skd", *(one.name for one in web_page.WANTED)}
    assert "END OF TERMS AND CONDITIONS" in licences["dual-skd"]
    assert "LICENSE" in licences["onnxruntime-web"] and "ThirdPartyNotices" in licences["onnxruntime-web"]
    jpeg = licences[web_page.JPEG.name]
    for words in ("Independent JPEG Group", "Redistributions in binary form", "this permission notice appear in all"):
        assert words in jpeg


def test_a_page_without_the_notices_of_onnx_runtime_is_refused(monkeypatch):
    monkeypatch.setattr(web_page, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the LICENSE of onnxruntime"):
        web_page._of_onnxruntime("LICENSE")


def test_our_scripts_use_each_other_and_no_network():
    assert len(modules("dual-skd", "page.js", OWN)) == len(OWN)
    for name, source in OWN.items():
        assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|eval|innerHTML)\b", source), name
        assert source.startswith("// SPDX-License-Identifier: Apache-2.0\n")


# --- in Chromium ------------------------------------------------------------------------------------------------------


def recipe_of(preprocessing, names=("normal", "nodule"), **more):
    info = {
        "preprocessing": preprocessing, "class_names": names, "architecture": ARCHITECTURE,
        "calibration": {"temperature": 1.5, "images": 12, "nll_before": 1.0, "nll_after": 0.9},
    }  # fmt: skip
    parts = {"model": {"file": "model.pt", "sha256": "0"}, "prediction_sets": None, "auxiliary": None}
    return {**parts, **model_spec(info), **more}


EXPECTED = {
    "images": 9, "hounsfield": False, "modalities": ["X-ray"], "formats": ["picture", "DICOM"], "colour": False,
    "planes": [""], "sizes": [50, 50], "aspect_ratios": [1.2, 1.25],
}  # fmt: skip
# recipe -> files that it is tried on
RECIPES = {
    "percentile": PREPROCESSING,
    "fit": {**PREPROCESSING, "fit": "pad", "frame": "middle"},
    "file": {**PREPROCESSING, "window": "file", "fit": "crop"},
    "window": {**PREPROCESSING, "window": [40.0, 400.0], "spacing": 0.8},
    "spacing": {**PREPROCESSING, "spacing": 0.8},
}


def linear_network(path, seed):
    """Writes a network of one layer, which needs no exporter."""
    onnx = pytest.importorskip("onnx")
    make, floats = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(seed).normal(0, 0.02, (32 * 32, 2)).astype(np.float32)
    graph = make.make_graph(
        [make.make_node("Flatten", ["image"], ["flat"]), make.make_node("MatMul", ["flat", "weights"], ["logits"])],
        "linear",
        [make.make_tensor_value_info("image", floats, ["batch", 1, 32, 32])],
        [make.make_tensor_value_info("logits", floats, ["batch", 2])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of a network of one layer with an auxiliary."""
    work = tmp_path_factory.mktemp("page")
    for seed, name in enumerate(("model", "auxiliary")):
        linear_network(work / f"{name}.onnx", seed)
    sets = Conformal("lac", 0.1, 40, 0.8)._asdict()
    whole = recipe_of(PREPROCESSING | {"expected": EXPECTED}, prediction_sets=sets, auxiliary={"temperature": 2.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUAL_SKD_NPM", str(FETCHED))
        web_page.write_page(whole, work, work / "model.html")
    return work / "model.html"


@pytest.fixture(scope="module")
def page(page_file):
    """The page, open in Chromium; ``use`` exchanges its recipe."""
    with browser.opened_page(page_file, page_file.with_name("own")) as opened:
        opened.evaluate("dualSkd.loaded().then(() => 1)")
        yield opened
        assert opened.requests == []


CLASSIFY = """async ([file]) => (await dualSkd.classified(file, {accept: ACCEPT})).map((one) => ({
    ...one, prepared: one.prepared && [...one.prepared.values], logits: one.logits?.map((logits) => [...logits])}))"""


def asked(page, file, accept=True):
    return page.with_files(CLASSIFY.replace("ACCEPT", str(accept).lower()), [file])[0]


def dicom(path, values, syntax=ExplicitVRLittleEndian, **elements):
    """Writes a DICOM file of these stored values."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    bits = 8 * values.itemsize
    given = {
        "Modality": "CR", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "Rows": values.shape[-2],
        "Columns": values.shape[-1], "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"), **elements,
    }  # fmt: skip
    for name, value in given.items():
        setattr(dataset, name, value)
    big = syntax == ExplicitVRBigEndian
    dataset.PixelData = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset["PixelData"].VR = "OW"
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    dataset.save_as(path, enforce_file_format=True, little_endian=not big, implicit_vr=False)
    return path


def files(folder):
    """Files of many kinds, each with the numbers of a smooth image and noise."""
    rows, columns = np.mgrid[:61, :83]
    smooth = 900 * (np.sin(rows / 9) + np.cos(columns / 7))
    values = (smooth + np.random.default_rng(0).integers(0, 90, smooth.shape)).astype(np.int16)
    grey = Image.fromarray((values / 16 + 128).clip(0, 255).astype(np.uint8))
    colour = Image.merge("RGB", [grey, grey.transpose(Image.Transpose.ROTATE_180), grey])
    turned = Image.Exif()
    turned[0x0112] = 6
    window = {"WindowCenter": 40, "WindowWidth": 600, "RescaleSlope": 1.5, "RescaleIntercept": -200}
    spaced = {"PixelSpacing": [0.7, 0.9], "WindowCenter": 40, "WindowWidth": 600}
    colour.save(folder / "colour.jpg", subsampling="4:2:0")
    grey.save(folder / "turned.jpg", exif=turned, dpi=(100, 150))
    colour.quantize(9).save(folder / "palette.png")
    grey.convert("1").save(folder / "bits.png")
    Image.fromarray(values.astype(np.uint16)).save(folder / "deep.png")
    return {
        "percentile": [
            "colour.jpg", "turned.jpg", "palette.png", "bits.png", "deep.png", dicom(folder / "plain", values),
        ],
        "fit": ["turned.jpg", dicom(folder / "frames", np.stack([values, -values, values[::-1]]), NumberOfFrames=3)],
        "file": [
            dicom(folder / "one", values, PhotometricInterpretation="MONOCHROME1", **window),
            dicom(folder / "sigmoid", values, **window, VOILUTFunction="SIGMOID"),
        ],
        "window": [
            dicom(folder / "big", values, ExplicitVRBigEndian, **spaced, PixelPaddingValue=int(values[0, 0])),
            dicom(folder / "rle", values, RLELossless, **spaced, PhotometricInterpretation="MONOCHROME1"),
        ],
        "spacing": ["big"],
    }  # fmt: skip


@needs_browser
def test_the_input_of_the_network_is_that_of_python(page, tmp_path):
    for name, chosen in files(tmp_path).items():
        given = RECIPES[name]
        page.call("(given) => dualSkd.use({preprocessing: given})", given | {"steps": preprocessing_steps(given)})
        for file in chosen:
            path = tmp_path / file
            image = read_image(path, spatial_dims=2, frame=given["frame"], voi_lut=given["window"] == "file")
            expected = preprocess(preprocessing_steps(given), *image).ravel()
            found = asked(page, path)
            assert "problem" not in found, (name, file, found["problem"])
            np.testing.assert_allclose(found["prepared"], expected, atol=2e-6, err_msg=f"{name} {file}")


@needs_browser
def test_an_answer_and_its_row_are_those_of_python(page, tmp_path):
    page.call("(given) => dualSkd.use({preprocessing: given})", model_spec({
        "preprocessing": PREPROCESSING | {"expected": EXPECTED}, "class_names": ["normal", "nodule"],
        "architecture": ARCHITECTURE})["preprocessing"])  # fmt: skip
    file = tmp_path / "=1+1.png"
    picture(file, 3)
    found = asked(page, file, accept=False)
    p, other = (softmax(np.array(logits) / heat) for logits, heat in zip(found["logits"], (1.5, 2.0), strict=True))
    rules = PredictionRules(["normal", "nodule"], sets=Conformal("lac", 0.1, 40, 0.8), auxiliary=True)
    table = PredictionTable(tmp_path / "table.csv", rules.columns())
    table.append(rules.predictions(["=1+1.png"], p[None], other[None]))
    table.publish()
    written = page.with_files("async ([file]) => dualSkd.csvOf(await dualSkd.classified(file))", [file])
    assert written.encode() == (tmp_path / "table.csv").read_bytes()


def softmax(values):
    odds = np.exp(values - values.max())
    return odds / odds.sum()


@needs_browser
def test_the_gate_reads_files_and_is_handed_the_rest(page_file, tmp_path):
    files = [picture(tmp_path / "a.png", 3), str(tmp_path / "b.npy")]
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 32)).astype(np.float32)
    images[0] = preprocess(preprocessing_steps(PREPROCESSING), *read_image(files[0]))
    np.save(files[1], np.zeros((4, 4)))  # which the page doesn't read
    found, logits = page_check.measure(page_file, images, files)
    assert found["files_read"] == 1 and found["ms"]["1"] > 0
    weights = np.random.default_rng(0).normal(0, 0.02, (32 * 32, 2)).astype(np.float32)  # of linear_network
    np.testing.assert_allclose(logits, images.reshape(2, -1) @ weights, atol=1e-5)


@needs_browser
def test_what_cant_be_read_and_what_wasnt_trained_on_gets_a_sentence(page, tmp_path):
    values = np.arange(60 * 50, dtype=np.int16).reshape(60, 50)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.dcm").write_bytes(dicom(tmp_path / "whole.dcm", values).read_bytes()[:-200])
    Image.new("L", (50, 41)).save(tmp_path / "a.bmp")
    dicom(tmp_path / "ct.dcm", values, Modality="CT")
    sentences = {
        name: asked(page, tmp_path / name, accept=False).get("problem")
        for name in ("text.png", "cut.dcm", "a.bmp", "ct.dcm")
    }
    assert sentences["text.png"].startswith("text.png holds no PNG or JPEG image")
    assert "cut.dcm is " in sentences["cut.dcm"] and "copy it again" in sentences["cut.dcm"]
    assert "takes PNG, JPEG and DICOM" in sentences["a.bmp"]
    assert sentences["ct.dcm"].startswith(
        "ct.dcm isn't what was trained on: its modality is CT, training had X-ray only;"
    )
    assert "its modality is CT" in "".join(asked(page, tmp_path / "ct.dcm")["remarks"])


@needs_browser
def test_what_misleads_the_reader_gets_the_true_reason(page, tmp_path):
    values = np.arange(60 * 50, dtype=np.int16).reshape(60, 50)
    whole = Image.fromarray(values.astype(np.uint8))
    whole.save(tmp_path / "whole.png")
    whole.save(tmp_path / "whole.jpg")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "no_ending").write_bytes((tmp_path / "whole.png").read_bytes())
    (tmp_path / "dicom.png").write_bytes(dicom(tmp_path / "whole.dcm", values).read_bytes())
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
    png(tmp_path / "huge.png", width=30000, height=30000, code=b"cut")
    png(tmp_path / "none.png", width=0, height=5, code=b"cut")
    interlaced = struct.pack(">IIBBBBB", 9, 9, 1, 0, 0, 0, 1)
    (tmp_path / "interlaced.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", interlaced))
    expected = {
        "folder": 'for which there is "Choose a folder"', "empty.png": "is empty", "no_ending": "end with .png",
        "dicom.png": "end with .dcm", "cut.jpg": "damaged or cut", "huge.png": "30000 x 30000 pixels, more than",
        "none.png": "has no pixels", "interlaced.png": "is an interlaced PNG of fewer than 8 bits",
    }  # fmt: skip
    for name, words in expected.items():
        assert words in asked(page, tmp_path / name)["problem"], name
    (tmp_path / "tail.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes() + bytes(3000))
    assert asked(page, tmp_path / "tail.jpg")["logits"] == asked(page, tmp_path / "whole.jpg")["logits"]


@needs_browser
@pytest.mark.parametrize("keyword", ["SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"])
def test_dicom_that_doesnt_say_what_its_bytes_mean_is_refused(page, tmp_path, keyword):
    values = np.arange(60 * 50, dtype=np.int16).reshape(60, 50)
    dicom(tmp_path / "lacking.dcm", values, **{keyword: None})
    assert f"has no {keyword}" in asked(page, tmp_path / "lacking.dcm")["problem"]
    dicom(tmp_path / "wide.dcm", values, BitsStored=20)
    assert "values of 20 bits in 16" in asked(page, tmp_path / "wide.dcm")["problem"]


@needs_browser
def test_a_person_gets_an_answer_and_a_table(page, tmp_path):
    picture(tmp_path / "one.png", 3)
    picture(tmp_path / "two.png", 5)
    page.with_files("""(files) => {
        const given = new DataTransfer();
        files.forEach((file) => given.items.add(file));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: given, cancelable: true, bubbles: true}));
        return new Promise((done) => {
            const look = () => (document.querySelectorAll("#rows tr").length === 2 ? done(1) : setTimeout(look, 20));
            look();
        });
    }""", [tmp_path / "one.png", tmp_path / "two.png"])  # fmt: skip
    answer = page.evaluate("document.getElementById('answer').innerText")
    assert re.search(r"(normal|nodule)", answer) and "Uncertainty" in answer and "Disagreement" in answer
    assert "two.png" in page.evaluate("document.getElementById('rows').innerText")
    assert page.evaluate("document.getElementById('name').textContent") == "one.png"
    widths = page.evaluate("[...document.querySelectorAll('.fill')].map((bar) => parseFloat(bar.style.width))")
    assert sum(widths) == pytest.approx(100)
    assert page.evaluate("document.getElementById('picture').width") == 32


DROP = """(files) => {
    const given = new DataTransfer();
    files.forEach((file) => given.items.add(file));
    document.dispatchEvent(new DragEvent("drop", {dataTransfer: given, cancelable: true, bubbles: true}));
}"""
ROWS = "document.querySelectorAll('#rows tr').length"
SETTLED = """new Promise((done) => {
    const status = document.getElementById("status");
    const look = () => (/read\\.|empty/.test(status.textContent) ? done(1) : setTimeout(look, 20));
    setTimeout(look, 20);
})"""


@needs_browser
def test_files_of_one_name_stay_apart_and_an_emptied_table_stays_empty(page, tmp_path):
    page.evaluate("document.getElementById('clear').click()")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "a.png").write_text("no image")
    picture(tmp_path / "two" / "a.png", 3)
    page.with_files(DROP, [tmp_path / "one" / "a.png", tmp_path / "two" / "a.png"])
    page.evaluate(f"(async () => {{ while ({ROWS} < 2) await {SETTLED}; }})()")
    rows = page.evaluate("document.getElementById('rows').innerText")
    assert rows.count("a.png") > 1 and "no answer" in rows
    page.with_files(DROP, [tmp_path / "two" / "a.png"] * 9)
    page.evaluate("document.getElementById('clear').click()")
    page.with_files(DROP, [tmp_path / "two" / "a.png"])
    page.evaluate(f"(async () => {{ while ({ROWS} < 1) await {SETTLED}; }})()")
    assert page.evaluate(ROWS) == 1
