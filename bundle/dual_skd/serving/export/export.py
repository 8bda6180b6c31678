# SPDX-License-Identifier: Apache-2.0
"""Exports a trained student to files for other runtimes, each of them verified and measured."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dual_skd.data import image_transforms, load_records, load_split
from dual_skd.data.reading.facts import spread
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record
from dual_skd.errors import InputError, choose, plain_input_errors
from dual_skd.networks.weight_files import read_info
from dual_skd.runs.lock import held
from dual_skd.runs.model_file import conformal_rule, load_model
from dual_skd.runs.places import find_model, model_file
from dual_skd.serving.export.builder import ArtefactBuilder, Row, finite, remove_earlier, with_sources
from dual_skd.serving.export.formats import BY_DEFAULT, CALIBRATION, FILES, FORMATS, RECIPE, SPEC, read_by_page
from dual_skd.serving.export.model_spec import model_spec
from dual_skd.serving.export.scratch import scratch_folder
from dual_skd.utils.files import expanded, make_folder, read_json, sha256_of, write_json, write_text

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 256  # 64 leave the ranges of late layers too narrow, see docs/deployment.md
IMAGES_BYTES = 2**30  # images to verify on, held in memory, are at most so large


def export(
    run_dir: str | Path,
    output: str | Path | None = None,
    *,
    formats: Sequence[str] = BY_DEFAULT,
    data: str | Path | None = None,
    label_column: str | Sequence[str] = "label",
    class_map: Mapping[Any, Any] | str | None = None,
    image_column: str | None = None,
    images: int = 2000,
    threads: int = 1,
    seconds: float = 3.0,
    timeout: float = 900.0,
) -> dict[str, Any]:
    """Writes the artefacts that pass, ``export.json`` and ``export.md``.

    Args:
        run_dir: ``output_dir`` of a training run; or a model file, or the name of one that comes with the bundle, which
            need ``output`` and ``data``.
        output: folder of the artefacts, default ``run_dir/export``; those of an earlier export are removed from it.
        formats: of :data:`dual_skd.serving.export.formats.FORMATS`; "html" is made on request only.
        data: labelled images to verify on, of which the validation images are taken if there are any; those of the run.
        label_column, class_map, image_column: of ``data``, see :func:`dual_skd.data.load_records`.
        images: verify on so many at most, evenly spread; on fewer where they would take more than 1 GiB.
        threads, seconds: for the time of one batch size.
        timeout: seconds that one step may take.

    Returns:
        the content of ``export.json``.

    Raises:
        InputError: no model, no such format, or no images to verify on; an earlier export stays as it was.
    """
    _refuse_impossible(formats, images=images, threads=threads)
    model, run_dir = _model_of(run_dir, alone=output is not None)
    output = run_dir / "export" if output is None else expanded(output)
    read_as = {"label_column": label_column, "class_map": class_map, "image_column": image_column}
    with held(run_dir if run_dir in output.parents else output, "export"), scratch_folder("dual_skd_export_") as work:
        info = load_model(model)[1]
        make_folder(output)  # before the work, which takes minutes
        spec = model_spec(info)
        fitting = max(IMAGES_BYTES // (4 * math.prod(spec["input"]["shape"][1:])), 1)  # one, however large an image is
        used = _images_of(run_dir, data, read_as, info, min(images, fitting), min(CALIBRATION_IMAGES, fitting))
        _prepare(work, used, spec, image_transforms(**info["preprocessing"] | {"expected": None}))
        builder = ArtefactBuilder(model, work, spec, threads=threads, seconds=seconds, timeout=timeout)
        described = {
            "model": {"file": model.name, "sha256": sha256_of(model)},
            **spec,
            "prediction_sets": _prediction_sets(run_dir, info),
        }
        made = _made(builder, used, output, formats, read_json(run_dir / "run.json"), described)
        report = {
            "made_with": _versions(),
            **described,
            "auxiliary": made.pop("auxiliary"),
            "verified_on": {"data": used.source, "images": len(used.records), "reference": "PyTorch, float32"},
            "measured": _conditions(threads),
            **made,
        }
        write_json(output / "export.json", report)
        write_text(output / "export.md", markdown(report))
    return report


def _model_of(place: str | Path, *, alone: bool) -> tuple[Path, Path]:
    """The model file, and the folder of its run; of a model alone, its own folder, into which nothing is written."""
    named = model_file(place)
    if not named.is_file() or expanded(place).is_dir():
        return Path(find_model(expanded(place))).absolute(), expanded(place)
    if not alone:
        raise InputError(f"{place} is a model without the folder of a run; give a folder for the files as --output.")
    return named.absolute(), named.absolute().parent


def _refuse_impossible(formats: Sequence[str], **counts: int) -> None:
    for name in formats:
        choose(FORMATS, name, "format")
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} is {value}; give a number from 1 on.")


def _made(
    builder: ArtefactBuilder,
    used: Images,
    output: Path,
    formats: Sequence[str],
    run: Mapping[str, Any],
    described: Mapping[str, Any],
) -> Row:
    """Makes the artefacts, and returns their entries of ``export.json``."""
    remove_earlier(output)
    labels = torch.tensor([record.label for record in used.records])
    baselines = builder.baselines(run)
    auxiliary = None
    if {"onnx", "html"} & {*formats}:
        auxiliary = _auxiliary(builder, labels, output if "onnx" in formats else make_folder(builder.work / "not_kept"))
    second = None if auxiliary is None or auxiliary["status"] != "passed" else auxiliary["temperature"]
    write_json(builder.work / RECIPE, {**described, "auxiliary": second and {"temperature": second}})
    rows = [builder.artefact(name, labels, output, wanted=name in formats) for name in with_sources(formats)]
    rows = [row for row in rows if row["format"] in formats]
    passed = [row for row in rows if row["status"] == "passed" and row["ms"]["1"] is not None]
    return {
        "auxiliary": auxiliary if "onnx" in formats else None,
        "baselines": baselines,
        "artefacts": rows,
        "fastest": min(passed, key=lambda row: row["ms"]["1"])["format"] if passed else None,
    }


def _prediction_sets(run_dir: Path, info: Mapping[str, Any]) -> Row | None:
    """The rule of the prediction sets in plain values; its threshold is None where every set is full."""
    rule = conformal_rule(run_dir, info)
    return None if rule is None else {**rule._asdict(), "threshold": finite(rule.threshold)}


def _auxiliary(builder: ArtefactBuilder, labels: torch.Tensor, output: Path) -> Row | None:
    """The auxiliary as ONNX, for the disagreement that ``predict`` states; None where the run left none."""
    path = builder.model.with_name("auxiliary.pt")
    if not path.is_file():
        return None
    spec = model_spec(read_info(path))
    other = ArtefactBuilder(path, builder.work, spec, threads=builder.threads, seconds=0, timeout=builder.timeout)
    made = builder.work / FORMATS["onnx"].files[0]
    made.unlink(missing_ok=True)
    row = other.artefact("onnx", labels, output)
    if made.is_file():  # not to be taken for the student's
        made.rename(made.with_name("auxiliary.onnx"))
    return {"model": {"file": path.name, "sha256": sha256_of(path)}, "temperature": spec["temperature"]} | row


# --- images -----------------------------------------------------------------------------------------------------------


class Images(NamedTuple):
    """Records to verify on, their source in words, and records to calibrate quantisation on."""

    records: list[Record]
    source: str
    calibration: list[Record]


def _images_of(
    run_dir: Path,
    data: str | Path | None,
    read_as: Mapping[str, Any],
    info: Mapping[str, Any],
    most: int,
    calibrated: int,
) -> Images:
    """At most ``most`` images of the data, or of the run, and ``calibrated`` training images where they are there."""
    own: DataList | None = None
    try:
        own = load_split(run_dir / "datalist.json")
    except InputError as error:
        if data is None:
            raise InputError(
                f"The images of this run can't be used for the verification ({error}) Give labelled images as --data."
            ) from error
    given: Any = own if data is None else _labelled(data, read_as, info)
    records = given.val or [record for split in given.splits.values() for record in split]
    which = "validation images" if given.val else "all images"
    source = f"{which} of {(run_dir if data is None else Path(data)).resolve().name}"
    records = _spread(records, most)
    calibration = own.train if own is not None else []
    if not calibration:
        logger.warning("The training images aren't there; quantisation is calibrated on images it is verified on.")
    return Images(records, source, _spread(calibration or records, calibrated))


def _prepare(work: Path, used: Images, spec: Mapping[str, Any], transforms: Any) -> None:
    """Writes what the processes of the conversion need."""
    np.save(work / "images.npy", _arrays(used.records, transforms))
    np.save(work / CALIBRATION, _arrays(used.calibration, transforms))
    write_json(work / SPEC, spec)
    write_text(work / FILES, json.dumps([os.path.abspath(record.image) for record in used.records]))


def _labelled(data: str | Path, read_as: Mapping[str, Any], info: Mapping[str, Any]) -> DataList:
    preprocessing = info["preprocessing"]
    found = load_records(
        data, spatial_dims=preprocessing.get("spatial_dims", 2), class_names=info["class_names"], val_fraction=0.0,
        numbers_are_places=False, test_fraction=0.0, keep_twins=True, patient_pattern="",
        frame=preprocessing.get("frame"), **read_as, refuse_shared_patients=False,
    )  # fmt: skip
    if list(found.class_names) != list(info["class_names"]) or found.multi_label != bool(info.get("multi_label")):
        raise InputError(
            f"{data} has the classes {', '.join(found.class_names)}, expected those of the model, "
            f"{', '.join(info['class_names'])}; give data with the same labels."
        )
    return found


def _spread(records: Sequence[Record], most: int) -> list[Record]:
    return [records[place] for place in spread(len(records), most)]


def _arrays(records: Sequence[Record], transforms: Any) -> np.ndarray:
    with plain_input_errors():
        return np.stack([transforms({"image": record.image})["image"].numpy() for record in records])


# --- the report -------------------------------------------------------------------------------------------------------


def markdown(report: Mapping[str, Any]) -> str:
    """The table of an export: both networks in eager PyTorch and every format, the fastest that passed in bold."""
    measured, verified = report["measured"], report["verified_on"]
    large = next((row["ms"].get("1") for row in report["baselines"] if row["name"].startswith("large")), None)
    lines = [
        f"Verified on {verified['images']} images ({verified['data']}) against PyTorch in float32. Time: median of the "
        f"{measured['clock']}, {measured['threads']} thread{'s' * (measured['threads'] > 1)}, {measured['machine']}. "
        "Memory: peak of the process.",
        "",
        "| | result | file, MB | ms, batch 1 | ms, batch 32 | times faster than large | memory, MB "
        "| largest difference of a probability | fall of AUC | changed decisions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (*report["baselines"], *report["artefacts"]):
        name = row.get("name", row.get("format"))
        first, many = (row.get("ms", {}).get(batch) for batch in ("1", "32"))
        checked = row.get("verification", {})
        drop = None if checked.get("auc") is None else checked["auc_reference"] - checked["auc"]
        reason = f": {row['reason']}" if row.get("reason") else read_by_page(row)
        status = row.get("status", "baseline") + reason
        status += f", first {row['float_layers']:.0%} of the layers in float" if row.get("float_layers") else ""
        cells = [
            f"**{name}, the fastest**" if name == report["fastest"] else name, status.replace("|", "/"),
            _number(row.get("bytes") and row["bytes"] / 1e6, ".2f"), _number(first, ".2f"), _number(many, ".1f"),
            _number(large / first if large and first and "files_read" not in row else None, ".1f"),
            _number(row.get("peak_mb"), ".0f"),
            _number(checked.get("max_difference"), ".1g"), _number(drop, ".4f"), _number(checked.get("changed"), ".2%"),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("dual-skd", "torch", "monai", "timm", "onnx", "onnxruntime", "openvino", "nncf"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _conditions(threads: int) -> Row:
    clock = "processor time" if threads == 1 else "clock time"
    return {"machine": machine(), "threads": threads, "clock": clock}


def machine() -> str:
    """The processor in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
