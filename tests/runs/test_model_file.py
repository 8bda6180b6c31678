# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from safetensors.torch import load_file
from torch import nn

from dual_skd.data import write_demo
from dual_skd.errors import InputError
from dual_skd.metrics import fit_conformal, fit_temperature, write_predictions
from dual_skd.networks.build import build_network
from dual_skd.networks.pretrained import load_pretrained
from dual_skd.runs.model_file import (
    conformal_rule,
    find_model,
    load_model,
    plain_values,
    save_model,
)
from dual_skd.utils.files import sha256_of

ARCHITECTURE = {"name": "resnet18", "num_classes": 2, "in_channels": 1, "spatial_dims": 2,
                "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}  # fmt: skip
NAMES = ["normal", "nodule"]


def network():
    return build_network(**ARCHITECTURE)


def save(directory, net, **options):
    return save_model(directory, net, **({"architecture": ARCHITECTURE, "class_names": NAMES} | options))


@pytest.mark.parametrize("chosen", ["model.pt", "model.safetensors", "", ".."])
def test_a_saved_model_is_rebuilt_with_the_same_logits(tmp_path, chosen):
    net = network().train()
    net(torch.randn(4, 1, 32, 32))  # moves the normalisation statistics
    save(tmp_path / "models", net, preprocessing={"image_size": (32, 32), "window": None})
    loaded, info = load_model(tmp_path / "models" / chosen)
    assert not loaded.training
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(loaded(x), net.eval()(x), rtol=0, atol=0)
    assert info == {
        "architecture": ARCHITECTURE, "class_names": NAMES, "preprocessing": {"image_size": [32, 32], "window": None},
        "multi_label": False,
    }  # fmt: skip


def test_model_file_is_plain_and_fits_monai_and_our_own_pretrained(tmp_path):
    net = network()
    path = save(tmp_path, nn.DataParallel(net), preprocessing={"mean": np.float32(0.5), "file": Path("a")})
    content = torch.load(path, weights_only=True)
    assert content._metadata[""]["preprocessing"] == {"mean": 0.5, "file": "a"}
    assert content.keys() == load_file(tmp_path / "model.safetensors").keys() == net.state_dict().keys()
    fresh = network()
    fresh.load_state_dict(content)
    assert torch.equal(fresh.conv1.weight, net.conv1.weight)
    other, engine = network(), Engine(lambda engine, batch: None)
    CheckpointLoader(str(path), {"model": other}).attach(engine)
    engine.run([0])
    assert torch.equal(other.conv1.weight, net.conv1.weight)
    options = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}
    assert torch.equal(load_pretrained("resnet18", str(path), **options)["conv1.weight"], net.conv1.weight)


def test_a_file_of_an_older_version_with_a_nested_state_dict_is_read(tmp_path):
    net = network().eval()
    torch.save({"model": net.state_dict(), "architecture": ARCHITECTURE, "class_names": NAMES}, tmp_path / "model.pt")
    loaded, info = load_model(tmp_path)
    assert info == {"architecture": ARCHITECTURE, "class_names": NAMES}
    assert torch.equal(loaded.conv1.weight, net.conv1.weight)


def test_no_half_written_file_is_left(tmp_path, monkeypatch):
    save(tmp_path, network())
    before = (tmp_path / "model.pt").read_bytes()

    def killed(content, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, network())
    assert (tmp_path / "model.pt").read_bytes() == before


def test_unusable_model_files_are_named(tmp_path):
    with pytest.raises(InputError, match="No weights file.*give the output_dir of a run, .* or the path of a"):
        load_model(tmp_path)
    (tmp_path / "nothing_here2").mkdir()
    (tmp_path / "nothing_here.sh").touch()
    with pytest.raises(InputError, match=r"\(did you mean \S*nothing_here2\?\)"):
        load_model(tmp_path / "nothing_here")
    torch.save({"model": network().state_dict()}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="no architecture"):
        load_model(tmp_path)
    save(tmp_path, network(), architecture=ARCHITECTURE | {"channels": [8, 8, 8, 8]})
    with pytest.raises(InputError, match="don't belong together"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="plain values only"):
        save(tmp_path, network(), preprocessing={"transform": object()})


def test_the_model_of_the_run_is_preferred_to_that_of_the_bundle(tmp_path):
    run, root = tmp_path / "run", tmp_path / "bundle"
    with pytest.raises(InputError, match="give the folder of a finished run as output_dir, or train one"):
        find_model(run, root)
    ours = save(root / "models", network())
    assert find_model(run, root) == str(ours)
    run.mkdir()
    (run / "datalist.json").write_text("{}")
    with pytest.raises(InputError, match="hasn't kept a model yet"):  # another one's answers would pass for its own
        find_model(run, root)
    own = save(run / "models", network())
    assert find_model(run, root) == str(own)


def test_the_demos_model_answers_for_the_demos_images_only(tmp_path):
    root, demo = tmp_path / "bundle", write_demo(tmp_path / "phantoms", counts={"test": 3})
    shipped = save(root / "models", network())
    (tmp_path / "patients").mkdir()
    record = {"description": "made of phantoms", "demo_test": {}, "sha256": sha256_of(shipped)}
    (root / "models" / "model.json").write_text(json.dumps(record))
    save(tmp_path / "my_run" / "models", network())
    typo = tmp_path / "my_rnu"
    for images in (None, "demo", "demo3d", demo, demo / "images", min((demo / "images").iterdir())):
        assert find_model(typo, root, images) == str(shipped)
    for images in (tmp_path / "patients", str(tmp_path / "patients" / "a.png"), str(tmp_path)):
        with pytest.raises(InputError, match=r"did you mean my_run\?.*isn't asked about.*made of phantoms"):
            find_model(typo, root, images)
    shipped.write_bytes(save(tmp_path / "other", network(), class_names=["other", "names"]).read_bytes())
    assert find_model(typo, root, tmp_path / "patients") == str(shipped)  # a packed bundle's own weights
    (root / "models" / "model.json").unlink()
    assert find_model(typo, root, tmp_path / "patients") == str(shipped)


def test_where_there_is_no_model_a_path_is_named_once(tmp_path):
    for root in (None, tmp_path / "run"):
        with pytest.raises(InputError) as caught:
            find_model(tmp_path / "run", root)
        assert str(caught.value).count("model.pt") == 1


def test_prediction_sets_are_calibrated_on_the_models_own_validation_predictions(tmp_path, caplog):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 2, generator=generator).double()
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    path = tmp_path / "predictions_validation.csv"
    write_predictions(path, list(map(str, range(40))), labels.numpy(), logits.softmax(1).numpy(), NAMES)
    fitted = fit_temperature(logits, labels)
    info = {"class_names": NAMES, "multi_label": False, "calibration": fitted._asdict()}
    for calibrate, divisor in ((True, fitted.temperature), (False, 1.0)):
        wanted = fit_conformal((logits / divisor).softmax(1), labels, alpha=0.2)
        found = conformal_rule(tmp_path, info, alpha=0.2, calibrate=calibrate)
        assert found[:3] == wanted[:3] and found.threshold == pytest.approx(wanted.threshold, abs=1e-5)
    assert "too few" not in caplog.text
    conformal_rule(tmp_path, info, alpha=0.01)
    assert "40 validation images are too few" in caplog.text and "(99 are needed)" in caplog.text
    for other in ({"calibration": fitted._asdict() | {"nll_before": fitted.nll_before * 1.1}},
                  {"calibration": fitted._asdict() | {"images": 41}}, {"class_names": NAMES[::-1]}):  # fmt: skip
        caplog.clear()
        assert conformal_rule(tmp_path, info | other) is None and "isn't of this model" in caplog.text
    assert conformal_rule(tmp_path, info | {"multi_label": True}) is None
    assert conformal_rule(tmp_path, {"class_names": NAMES}) is None
    assert conformal_rule(tmp_path / "elsewhere", info) is None


def test_values_of_any_kind_become_those_of_json(tmp_path):
    given = {"a": MappingProxyType({"b": 1}), "set": {2}, "range": range(2), "path": tmp_path, "array": np.arange(2)}
    assert plain_values(given) == {"a": {"b": 1}, "set": [2], "range": [0, 1], "path": str(tmp_path), "array": [0, 1]}
