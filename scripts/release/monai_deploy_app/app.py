# SPDX-License-Identifier: Apache-2.0
"""A MONAI Deploy application: a DICOM study in, the classes of its first matching series out, as DICOM SR and JSON."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from classifier_operator import ClassifierOperator
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
    DICOMTextSRWriterOperator,
    EquipmentInfo,
    ModelInfo,
)
from pydicom.uid import generate_uid

# the first series of images, of whatever modality; narrow it to what the network was trained on
MODALITIES = "(?i)^(CR|DX|MG|CT|MR|PT|NM|US|XA)$"
RULES = json.dumps({"selections": [{"name": "images", "conditions": {"Modality": MODALITIES}}]})


class DualSkdClassifierApp(Application):
    """Loader -> series selector -> series to volume -> classifier -> text SR."""

    def compose(self) -> None:
        context = Application.init_app_context(self.argv)
        source, target, models = map(Path, (context.input_path, context.output_path, context.model_path))
        loader = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=source, name="loader")
        selector = DICOMSeriesSelectorOperator(self, rules=RULES, name="selector")
        reader = DICOMSeriesToVolumeOperator(self, name="reader")
        classifier = ClassifierOperator(self, model_folder=models, output_folder=target, name="classifier")
        about = classifier.about
        sha256 = about["model"]["sha256"]
        version = str(about["made_with"].get("dual-skd", ""))
        writer = DICOMTextSRWriterOperator(
            self,
            output_folder=target,
            copy_tags=True,
            model_info=ModelInfo(
                creator="The dual-skd developers",
                name=f"dual-skd light classifier {sha256[:12]}",
                version=version,
                uid=generate_uid(entropy_srcs=["dual_skd device", sha256]),  # one device per set of weights
            ),
            equipment_info=EquipmentInfo(
                manufacturer="The dual-skd developers", manufacturer_model="dual_skd", software_version_number=version
            ),
            custom_tags={"SeriesDescription": "Classification, for research use only"},
            name="writer",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, reader, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(reader, classifier, {("image", "image")})
        self.add_flow(selector, classifier, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(selector, writer, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(classifier, writer, {("text", "text")})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    DualSkdClassifierApp().run()
