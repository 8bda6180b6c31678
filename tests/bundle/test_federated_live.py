# SPDX-License-Identifier: Apache-2.0
"""NVFlare's own simulator runs the job of scripts/federated with two and with four sites.

python3 -m venv flare && flare/bin/pip install . "nvflare==2.7.3" "monai-nvflare==0.4.0"
DUAL_SKD_NVFLARE=flare python -m pytest tests/bundle/test_federated_live.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from dual_skd import load_model
from scripts.federated.split_by_site import split_by_site

ENVIRONMENT = os.environ.get("DUAL_SKD_NVFLARE", "")
pytestmark = [
    pytest.mark.nvflare,
    pytest.mark.skipif(not ENVIRONMENT, reason="DUAL_SKD_NVFLARE names no environment with NVFlare"),
]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 1500  # on a loaded computer
POISON = """
from nvflare.apis.dxo_filter import DXOFilter


class Poison(DXOFilter):
    def __init__(self):
        super().__init__(["WEIGHT_DIFF"], ["WEIGHT_DIFF"])

    def process_dxo(self, dxo, shareable, fl_ctx):
        if fl_ctx.get_identity_name() == "site-4":
            dxo.data["conv1.weight"] = dxo.data["conv1.weight"] * float("nan")
        return dxo
"""


@pytest.fixture
def job(tmp_path, tiny) -> Path:
    """The job as documented, with a network of a few channels."""
    folder = tmp_path / "federation"
    shutil.copytree(ROOT / "scripts" / "federated" / "job", folder)
    shutil.copytree(ROOT / "bundle" / "configs", folder / "app" / "bundle" / "configs")
    options = folder / "app" / "config" / "federation.json"
    networks = {name: tiny[name] for name in tiny if name not in ("dataset_dir", "epochs")}
    options.write_text(json.dumps(json.loads(options.read_text()) | networks | {"device": "cpu", "num_workers": 0}))
    return folder


def simulate(job: Path, sites: list[str], folder: Path) -> str:
    """Runs the job to its end; returns what the simulator said."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"DUAL_SKD_SITES": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "bundle")}
    done = subprocess.run(
        [Path(ENVIRONMENT).absolute() / "bin" / "nvflare", "simulator", job, "-w", folder / "workspace",
         "-c", ",".join(sites), "-t", str(len(sites))],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    return done.stdout + done.stderr


def global_model(folder: Path) -> dict[str, torch.Tensor]:
    """The server's last average."""
    file = folder / "workspace" / "server" / "simulate_job" / "app_server" / "FL_global_model.pt"
    return torch.load(file, weights_only=True)["model"]


@pytest.mark.parametrize("sites", [["fixed", "mobile"], ["site-1", "site-2", "site-3", "site-4"]])
def test_sites_end_with_the_servers_average(job, demo, tmp_path, sites):
    dealt = {} if len(sites) == 2 else {"deal": 4}
    split_by_site(demo, tmp_path, column="machine", **dealt)
    said = simulate(job, sites, tmp_path)
    assert "first global weights aren't those" not in said, said[-3000:]
    average = global_model(tmp_path)
    assert said.count("ACCEPTED by the aggregator") == 3 * len(sites)
    for site in sites:
        kept = load_model(tmp_path / site / "output")[0].state_dict()
        for name, values in average.items():
            torch.testing.assert_close(
                kept[name].double(), values.double().reshape(kept[name].shape), rtol=0, atol=1e-6
            )
    server = tmp_path / "workspace" / "server"
    measured = json.loads((server / "simulate_job" / "cross_site_val" / "cross_val_results.json").read_text())
    assert sorted(measured) == sites and all(0 <= one["SRV_FL_global_model.pt"]["nll"] for one in measured.values())
    assert not (server / "output").exists()  # the server has no images


def poison(job: Path) -> None:
    """Lets site-4 send NaN, whatever it has trained."""
    code = job / "app" / "custom" / "poison.py"
    code.parent.mkdir()
    code.write_text(POISON)
    config = job / "app" / "config" / "config_fed_client.json"
    client = json.loads(config.read_text())
    client["task_result_filters"] = [{"tasks": ["train"], "filters": [{"path": "poison.Poison"}]}]
    config.write_text(json.dumps(client))


def test_sites_that_fail_or_send_bad_numbers_are_left_out(job, demo, tmp_path):
    split_by_site(demo, tmp_path, deal=4)
    poison(job)
    table = tmp_path / "site-3" / "datalist.csv"
    table.write_text(table.read_text().replace("nodule", "effusion"))  # a class that the others don't know
    said = simulate(job, ["site-1", "site-2", "site-3", "site-4"], tmp_path)
    assert "site-3 can't take part: " in said and "has labels that are none of the classes: effusion" in said
    assert "The weights of site-4 hold NaN or infinite numbers in 1 tensor (conv1.weight)" in said
    assert said.count("ACCEPTED by the aggregator") == 6
    assert all(torch.isfinite(values).all() for values in global_model(tmp_path).values() if values.is_floating_point())
