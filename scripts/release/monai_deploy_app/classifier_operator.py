# SPDX-License-Identifier: Apache-2.0
"""The operator that classifies the image of MONAI Deploy's series reader."""

from __future__ import annotations

import json
from pathlib import Path

from classify import (
    classify,
    load,
    refuse_inverted,
    refuse_oblong,
    refuse_padding,
    refuse_unexpected,
    report_text,
)  # fmt: skip
from monai.deploy.core import ConditionType, Fragment, Operator, OperatorSpec


class ClassifierOperator(Operator):
    """Classifies a series by ``model.ts`` and ``export.json``.

    Named input:
        image: of ``DICOMSeriesToVolumeOperator``, (slices, rows, columns).
        study_selected_series_list: of ``DICOMSeriesSelectorOperator``, whose first series the image is.
    Named output:
        text: for ``DICOMTextSRWriterOperator``; the receiver is optional.
    File output:
        ``classification.json`` in the output folder.
    """

    def __init__(self, fragment: Fragment, *args, model_folder: Path, output_folder: Path, **kwargs) -> None:
        self.output_folder = Path(output_folder)
        self.network, self.about = load(model_folder)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("image")
        spec.input("study_selected_series_list")
        spec.output("text").condition(ConditionType.NONE)

    def compute(self, op_input, op_output, context) -> None:
        image = op_input.receive("image")
        series = op_input.receive("study_selected_series_list")[0].selected_series[0].series
        headers = [instance.get_native_sop_instance() for instance in series.get_sop_instances()]
        refuse_padding(headers)
        refuse_inverted(headers, self.about)
        refuse_oblong(headers, self.about)
        refuse_unexpected(headers, self.about)
        header = headers[0]
        volume, given = image.asnumpy(), image.metadata()
        # the reader inverts by PresentationLUTShape only, which CR images don't have
        if header.get("PhotometricInterpretation") == "MONOCHROME1" and "PresentationLUTShape" not in header:
            volume = volume.max() + volume.min() - volume.astype(float)
        # names of DICOMSeries; the reader sets them where the files state them
        spacing = [given.get(f"{axis}_pixel_spacing") for axis in ("col", "row", "depth")]
        flat = self.about["preprocessing"].get("spatial_dims", 2) == 2
        known = all(spacing[: 2 if flat else 3])
        rows = classify(
            volume, self.network, self.about, affine=given.get("affine"), spacing=spacing if known else None
        )
        self.output_folder.mkdir(parents=True, exist_ok=True)
        result = {
            "series": str(series.SeriesInstanceUID),
            "weights_sha256": self.about["model"]["sha256"],
            "probabilities": rows,
            "notice": "For research use only. Not a medical device.",
        }
        path = self.output_folder / "classification.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        op_output.emit(report_text(rows, self.about), "text")
