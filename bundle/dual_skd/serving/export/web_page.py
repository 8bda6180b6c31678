# SPDX-License-Identifier: Apache-2.0
"""One HTML file that classifies images in a browser: networks, ONNX Runtime Web and readers in one page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pydicom.uid
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dual_skd import __version__
from dual_skd.errors import InputError
from dual_skd.runs.places import own_bundle
from dual_skd.serving.export.npm import Package, files_of, modules

WEB = Path(__file__).with_name("web")

RUNTIME = Package(
    "onnxruntime-web", "1.30.0",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)  # fmt: skip
DICOM = Package(
    "dicom-parser", "1.8.21",
    "sha512-lYCweHQDsC8UFpXErPlg86Px2A8bay0HiUY+wzoG3xv5GzgqVHU3lziwSc/Gzn7VV7y2KeP072SzCviuOoU02w==",
)  # fmt: skip
JPEG = Package(
    "@cornerstonejs/codec-libjpeg-turbo-8bit", "1.2.8",
    "sha512-qggTc0EAso+FAB4aND1wufjY/FnaVXKaJ/PAiabSksaAgf8jhCew+K3R4e3QWJI8SqcYczZFkhpVdFVwXG9ZgQ==",
)  # fmt: skip
PNG = Package(
    "fast-png", "8.0.0",
    "sha512-gCysNasJ8KEMgfdYIKd/wTDo6ENK1PWT0RJO7O+0pgmuHPw2O6tA1WvdxFRJoLf9V8yFYpG0FA1YgI8X97OhJA==",
)  # fmt: skip
BUFFER = Package(
    "iobuffer", "6.0.1",
    "sha512-SZWYkWNfjIXIBYSDpXDYIgshqtbOPsi4lviawAEceR1Kqk+sHDlcQjWrzNQsii80AyBY0q5c8HCTNjqo74ul+Q==",
)  # fmt: skip
DEFLATE = Package(
    "fflate", "0.8.3",
    "sha512-tbZNuJrLwGUp3zshBtdy4W+ORxZuIh8a5ilyIEQDC5rY1f3U20JMry0Ll3WBzU58EZKsEuJFXhb5gwv8CsPvgA==",
)  # fmt: skip
# package -> what the page has of it
WANTED = {
    RUNTIME: ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"),
    DICOM: ("dist/dicomParser.min.js", "LICENSE"),
    JPEG: ("dist/libjpegturbowasm_decode.*",),
    PNG: ("lib/*.js", "LICENSE"),
    BUFFER: ("lib/*.js", "LICENSE"),
    DEFLATE: ("esm/browser.js", "LICENSE"),
}
MODULES = {RUNTIME: WANTED[RUNTIME][0], PNG: "lib/index.js", BUFFER: "lib/iobuffer.js", DEFLATE: "esm/browser.js"}
SCRIPTS = ((DICOM, "dist/dicomParser.min.js"), (JPEG, "dist/libjpegturbowasm_decode.js"))
Files = Mapping[Package, Mapping[str, bytes]]


def write_page(recipe: Mapping[str, Any], work: Path, target: Path) -> None:
    """Writes the page of a model.

    Args:
        recipe: of :func:`~dual_skd.serving.export.model_spec.model_spec`, with ``model``, ``prediction_sets`` and
            ``auxiliary`` (its ``temperature``, or None).
        work: with ``model.onnx``, and ``auxiliary.onnx`` where there is an auxiliary.
        target: the HTML file.

    Raises:
        InputError: the libraries can't be had.
    """
    files = {package: files_of(package, wanted) for package, wanted in WANTED.items()}
    packed = {
        "onnxruntime": files[RUNTIME]["dist/ort-wasm-simd-threaded.wasm"],
        "jpeg": files[JPEG]["dist/libjpegturbowasm_decode.wasm"],
        "model": (work / "model.onnx").read_bytes(),
    }
    if recipe["auxiliary"]:
        packed["auxiliary"] = (work / "auxiliary.onnx").read_bytes()
    importmap = json.dumps({"imports": {name: _address(text) for name, text in _modules(files).items()}})
    content = _environment().get_template("page.html.j2").render(
        version=__version__,
        recipe=recipe,
        recipe_json=_in_script({**recipe, "dicom_objects": _other_objects()}),
        style=Markup((WEB / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        licences=_licences(files),
        assets={name: _packed(one) for name, one in packed.items()},
        importmap=Markup(importmap),  # noqa: S704 - base64 and names of modules
        importmap_hash="sha256-" + base64.b64encode(hashlib.sha256(importmap.encode()).digest()).decode(),
        scripts=[_address(files[package][path].decode()) for package, path in SCRIPTS],
        main=_address('import "dual-skd";'),
    )  # fmt: skip
    target.write_text(content, encoding="utf-8")


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _modules(files: Files) -> dict[str, str]:
    """All ES modules by the names under which they import each other."""
    found = modules("dual-skd", "page.js", {path.name: path.read_text(encoding="utf-8") for path in WEB.glob("*.js")})
    for package, entry in MODULES.items():
        sources = {path: content.decode() for path, content in files[package].items() if path.endswith(("js", "mjs"))}
        found |= modules(package.name, entry, sources)
    return found


def _address(source: str) -> str:
    return "data:text/javascript;base64," + base64.b64encode(source.encode()).decode()


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _in_script(content: Mapping[str, Any]) -> Markup:
    """JSON that can't end the script it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - no tag is left


def _licences(files: Files) -> list[tuple[str, str]]:
    """Name and licence of the page's own scripts and of each library."""
    found = [(f"dual-skd {__version__}", (own_bundle() / "LICENSE").read_text(encoding="utf-8"))]
    for package in WANTED:
        # two packages hold no file with it; ONNX Runtime for Python has the same licence and parts
        texts = {
            RUNTIME: lambda: "\n\n".join(_of_onnxruntime(name) for name in ("LICENSE", "ThirdPartyNotices.txt")),
            JPEG: lambda: (WEB / "jpeg_licence.txt").read_text(encoding="utf-8"),
        }
        text = texts[package]() if package in texts else files[package]["LICENSE"].decode()
        found.append((f"{package.name} {package.version}", text))
    return found


def _of_onnxruntime(name: str) -> str:
    spec = find_spec("onnxruntime")  # not imported: that may report to Microsoft
    path = Path(spec.origin).with_name(name) if spec and spec.origin else None
    if path is None or not path.is_file():
        raise InputError(f"The page needs the {name} of onnxruntime, which isn't there; pip install onnxruntime.")
    return path.read_text(encoding="utf-8", errors="replace")


def _other_objects() -> dict[str, str]:
    """UID -> name of the DICOM objects that are no images, though some of them have rows and columns."""
    known = (value for value in vars(pydicom.uid).values() if isinstance(value, pydicom.uid.UID))
    return {str(uid): uid.name for uid in known if uid.name.endswith("Storage") and "Image" not in uid.name}
