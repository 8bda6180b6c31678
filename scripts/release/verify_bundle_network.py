# SPDX-License-Identifier: Apache-2.0
"""The checks of a bundle that need its own code and a network: ``verify_bundle`` starts this file as a program.

Its arguments are ROOT OUTPUT_DIR DATA ANSWERS CHECK ... Nothing else of ``scripts`` is imported. It writes
``ANSWERS/<check>.json`` with ``ok`` and ``detail``. The network is the bundle's own ``models/model.pt``, else
that of the finished run in OUTPUT_DIR, which is then copied into ROOT as a released bundle would have it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow, ckpt_export, load, verify_net_in_out
from monai.data import load_net_with_metadata

import dual_skd
from dual_skd.data.demo import CLASSES_2D
from dual_skd.runs.model_file import load_model

KINDS = {"train": "train", "evaluate": "eval", "inference": "inference"}


class Networks:
    """The bundle at ``root`` with weights in its ``models``, and a finished run of it."""

    def __init__(self, root: Path, output: Path, data: Path, scratch: Path) -> None:
        self.root, self.output, self.data, self.scratch = root, output, data, scratch
        self.model = root / "models" / "model.pt"
        if not self.model.is_file():
            self.model.parent.mkdir(exist_ok=True)
            shutil.copyfile(output / "models" / "model.pt", self.model)
        self.metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))

    def config(self, name: str) -> str:
        return str(self.root / "configs" / f"{name}.json")

    @property
    def image(self) -> torch.Tensor:
        """A batch of two as the metadata describe the input, (2, C, H, W[, D]), of a fixed seed."""
        described = self.metadata["network_data_format"]["inputs"]["image"]
        shape = (2, described["num_channels"], *described["spatial_shape"])
        return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1

    @property
    def expected(self) -> torch.Tensor:
        """Logits (2, K) of the network as the package itself loads it."""
        with torch.no_grad():
            return load_model(self.model)[0](self.image)

    def properties(self) -> str:
        for name, kind in KINDS.items():
            data = self.data / "images" if name == "inference" else self.data
            # a finished run isn't gone on with
            output = self.scratch / "properties" if name == "train" else self.output
            workflow = ConfigWorkflow(
                self.config(name), workflow_type=kind, logging_file=False, output_dir=str(output),
                dataset_dir=str(data), num_workers=0,
            )  # fmt: skip
            workflow.initialize()
            missing = workflow.check_properties()
            if missing is None or missing:
                raise ValueError(f"configs/{name}.json lacks the properties {missing}")
        return f"all of MONAI's, of {', '.join(KINDS)}"

    def network(self) -> str:
        meta = str(self.root / "configs" / "metadata.json")
        channels = self.metadata["network_data_format"]["outputs"]["pred"]["num_channels"]
        made = {"train": {"dataset_dir": str(self.data)}, "inference": {}}
        if channels != len(CLASSES_2D):  # packed with weights of other classes than the phantoms'
            del made["train"]
        for name, more in made.items():
            verify_net_in_out("network_def", meta_file=meta, config_file=self.config(name), device="cpu", **more)
        if tuple(self.expected.shape) != (2, channels):
            raise ValueError(f"output {tuple(self.expected.shape)} for two images, expected {(2, channels)}")
        return f"{tuple(self.image.shape)} to {tuple(self.expected.shape)}"

    def torchscript(self) -> str:
        path = self.scratch / "model.ts"
        ckpt_export(
            "network_def", filepath=str(path), ckpt_file=str(self.model), config_file=self.config("inference"),
            meta_file=str(self.root / "configs" / "metadata.json"),
        )  # fmt: skip
        scripted, meta, _ = load_net_with_metadata(str(path), map_location=torch.device("cpu"))
        with torch.no_grad():
            found = scripted.eval()(self.image)
        difference = (found - self.expected).abs().max().item()
        if difference > 1e-5:
            raise ValueError(f"outputs of the reloaded network differ by {difference:.2g}")
        if meta.get("version") != self.metadata["version"]:
            raise ValueError(f"the file has version {meta.get('version')}, expected {self.metadata['version']}")
        return f"reloaded, largest difference {difference:.1g}"

    def load(self) -> str:
        network = load(
            self.root.name, bundle_dir=str(self.root.parent), workflow_type="inference", source="monaihosting",
            device="cpu",
        )  # fmt: skip
        if not isinstance(network, torch.nn.Module):
            raise ValueError(f"monai.bundle.load gave a {type(network).__name__}, expected the network")
        with torch.no_grad():
            found = network.eval()(self.image)
        if not torch.allclose(found, self.expected, atol=1e-5):  # channels last: it rounds otherwise
            raise ValueError("the network that monai.bundle.load gives has other outputs than dual_skd.load_model's")
        return "monai.bundle.load gives the network with its weights"


def main(arguments: Sequence[str]) -> None:
    root, output, data, scratch = map(Path, arguments[:4])
    if not Path(dual_skd.__file__).is_relative_to(root):
        raise SystemExit(f"the code came from {dual_skd.__file__}, expected the bundle's own in {root}")
    networks = Networks(root, output, data, scratch)
    for name in arguments[4:]:
        try:
            answer = {"ok": True, "detail": getattr(networks, name)()}
        except Exception as error:  # MONAI and torch raise of every kind; the line of the check says which
            answer = {"ok": False, "detail": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        (scratch / f"{name}.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
