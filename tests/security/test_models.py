# SPDX-License-Identifier: Apache-2.0
"""Model files of a stranger: refused by name, quickly, without the network and without the memory they ask for."""

from __future__ import annotations

import json
import resource
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_run import ARCHITECTURE, NAMES, PREPROCESSING, save_tiny

from dual_skd import build_network, load_model
from dual_skd.errors import InputError
from dual_skd.networks.described import require_buildable
from dual_skd.networks.pretrained import load_pretrained
from dual_skd.networks.weight_files import load_state_file, read_info
from dual_skd.serving.export.formats import definition
from dual_skd.serving.predictor import predict
from dual_skd.utils.tensor_files import read_tensors

CALIBRATION = {"temperature": 1.5, "images": 9, "nll_before": 1.0, "nll_after": 0.9}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Loading a file asks for nothing: neither a name nor an address."""

    def refuse(*arguments, **named):
        raise AssertionError(f"the network was asked: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", refuse)


@pytest.fixture(autouse=True)
def little_memory():
    """No test takes more than 1 GiB beyond what the process had at its start."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("own"), calibration=CALIBRATION)


@pytest.fixture
def changed(own, tmp_path):
    """Writes the model of a run with other entries beside its weights, as .pt or .safetensors."""

    def write(ending: str = "pt", **entries) -> Path:
        state = torch.load(own, weights_only=True)
        path = tmp_path / f"strange.{ending}"
        about = state._metadata[""] | entries
        if ending == "pt":
            state._metadata[""] = about
            torch.save(state, path)
        else:
            texts = {key: json.dumps(about[key]) for key in (*entries, "architecture", "class_names", "preprocessing")}
            save_file(dict(state), path, texts)
        return path

    return write


def architecture(**options):
    return {"architecture": ARCHITECTURE | options}


def preprocessing(**options):
    return {"preprocessing": PREPROCESSING | options}


STRANGE = {
    "classes": architecture(num_classes=400_000) | {"class_names": ["a"] * 400_000},
    "other classes": {"class_names": ["a", "b", "c"]},
    "channels": architecture(in_channels=10**9),
    "deep": {"architecture": {"name": "resnet18", "num_classes": 2, "layers": [8000] * 4}},
    "very deep": {"architecture": {"name": "resnet18", "num_classes": 2, "layers": [10**6] * 4}},
    "monai deep": {"architecture": {"name": "monai_resnet10", "num_classes": 2, "layers": [8000] * 4}},
    "size": {"architecture": {"name": "vit_tiny_patch16_224", "num_classes": 2, "image_size": 100_000}},
    "large table": {"architecture": {"name": "vit_tiny_patch16_224", "num_classes": 2, "image_size": 8000}},
    "monai size": {"architecture": {"name": "monai_vit", "num_classes": 2, "image_size": 8000}},
    "NaN": architecture(drop_rate=float("nan")),
    "many": architecture(x=list(range(5000))),
    "no mapping": {"architecture": ["resnet18"]},
    "no name": {"architecture": {"num_classes": 2}},
    "name": architecture(name=5),
    "expression": architecture(act_layer="$__import__('os').system('touch canary')"),
    "target": architecture(_target_="os.system"),
    "text": architecture(num_classes="2"),
    "pretrained": architecture(pretrained=True),
    "overlay": architecture(pretrained_cfg_overlay={"url": "http://127.0.0.1/a.pt"}),
    "cfg": architecture(pretrained_cfg={"url": "http://127.0.0.1/a.pt"}),
    "checkpoint": architecture(checkpoint_path="a.pt"),
    "cache": architecture(cache_dir="cache"),
    "features": architecture(features_only=True),
    "hub": architecture(name="hf-hub:timm/resnet18.a1_in1k"),
    "hub 2": architecture(name="hf_hub:timm/resnet18.a1_in1k"),
    "local": architecture(name="local-dir:models"),
    "own": architecture(name="os:system"),
    "image": preprocessing(image_size=100_000),
    "volume": preprocessing(image_size=[1024] * 3, spatial_dims=3),
    "sizes": preprocessing(image_size=[8, 8, 8]),
    "size text": preprocessing(image_size="32"),
    "window": preprocessing(window=[1e308, float("inf")]),
    "window word": preprocessing(window="all"),
    "spacing": preprocessing(spacing=float("nan")),
    "unknown": preprocessing(with_label=True),
    "expected": preprocessing(expected={"images": "many"}),
    "expected more": preprocessing(expected={"other": 1}),
    "long name": {"class_names": ["a", "b" * 10**6]},
    "number name": {"class_names": [1, 2]},
    "no names": {"class_names": "ab"},
    "temperature": {"calibration": CALIBRATION | {"temperature": 1e308}},
    "zero": {"calibration": CALIBRATION | {"temperature": 0.0}},
    "temperature NaN": {"calibration": CALIBRATION | {"temperature": float("nan")}},
    "temperature text": {"calibration": CALIBRATION | {"temperature": "1"}},
    "calibration": {"calibration": [1]},
    "labels": {"multi_label": "perhaps"},
}


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", STRANGE)
def test_a_description_that_no_run_writes_is_refused_by_name(changed, kind, ending):
    path = changed(ending, **STRANGE[kind])
    with pytest.raises(InputError, match=f"strange.{ending}") as caught:
        load_model(path)
    assert len(str(caught.value)) < 2000


def test_a_strange_model_is_refused_before_it_answers(changed):
    path = changed(**STRANGE["pretrained"])
    with pytest.raises(InputError, match=r"strange.pt.*pretrained is no option of the network"):
        predict(np.zeros((40, 40)), model=path)


def test_references_that_multiply_are_not_followed_for_ever(own, changed):
    nested = ["a"]
    for _ in range(60):
        nested = [nested, nested]
    for entries in ({"class_names": nested}, architecture(x=nested), preprocessing(x=nested)):
        with pytest.raises(InputError, match="strange.pt"):
            load_model(changed(**entries))


def test_the_model_of_a_run_has_the_same_bits_as_before(own):
    network, info = load_model(own)
    former = build_network(**info["architecture"])
    former.load_state_dict(torch.load(own, weights_only=True))
    image = torch.randn(2, 1, 32, 32)
    assert torch.equal(network(image), former.eval()(image))


def tables(name: str):
    with torch.device("meta"):
        network = build_network(name, num_classes=2, in_channels=1)
    return {*dict(network.named_buffers())} - network.state_dict().keys()


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "test_vit_relpos", "efficientvit_m0", "swin_s3_tiny_224"])
def test_tables_that_are_not_in_the_file_are_computed(tmp_path, name):
    if name.startswith(("beit", "swin")):  # as small as the others
        options = {"embed_dim": 32, "num_heads": 2, "depth": 2} if "beit" in name else {
            "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}  # fmt: skip
    else:
        options = {}
    described = {"name": name, "num_classes": 2, "in_channels": 1, **options}
    network = build_network(**described).eval()
    about = {"architecture": described, "class_names": NAMES}
    torch.save({"model": network.state_dict(), **about}, tmp_path / "model.pt")
    assert tables(name)
    loaded, _ = load_model(tmp_path)
    size = timm.get_pretrained_cfg(name).input_size[-1]
    image = torch.randn(1, 1, size, size)
    assert torch.equal(loaded(image), network(image))


def test_an_option_of_the_loader_is_none_of_a_network():
    for name in ("resnet18", "tf_efficientnet_lite0"):
        with pytest.raises(InputError, match=f"{name}: pretrained is no option of the network"):
            build_network(name, num_classes=2, pretrained=True)


def test_a_run_that_names_a_large_network_says_nothing_more(tmp_path):
    path = tmp_path / "run.json"
    require_buildable(ARCHITECTURE, path, most_bytes=2**30)
    huge = ARCHITECTURE | {"num_classes": 10**9}
    for described in (huge, {"name": "os:system", "num_classes": 2}, "resnet18", None):
        with pytest.raises(InputError, match="run.json"):
            require_buildable(described, path, most_bytes=2**30)
    assert definition({"name": "a", "_target_": "os.system"})["_target_"] == "dual_skd.networks.build_network"


def repacked(path: Path, target: Path, *, compression: int, times: int = 1) -> Path:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry) * (times if "/data/" in entry.filename else 1))
    return target


READERS = pytest.mark.parametrize("read", [load_state_file, read_info, load_model, load_pretrained, read_tensors])


def refused(read, path):
    with pytest.raises(
        (InputError, ValueError), match="compressed|bytearray|not a zip file" if read is read_tensors else path.name
    ):
        read("resnet18", str(path)) if read is load_pretrained else read(path)


@READERS
def test_a_compressed_file_is_not_unpacked(tmp_path, read):
    torch.save({"a": torch.zeros(2**22)}, tmp_path / "large.pt")
    path = repacked(tmp_path / "large.pt", tmp_path / "bomb.pt", compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    refused(read, path)


class Call:
    """What a pickle calls with arguments when it is read."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@READERS
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_asks_for_memory_gets_none(tmp_path, read, legacy):
    path = tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(2), "b": Call(bytearray, 2**33)}, path, _use_new_zipfile_serialization=not legacy)
    refused(read, path)


def test_a_tensor_that_repeats_one_number_is_not_spread_out(tmp_path):
    described = {"name": "resnet18", "num_classes": 2, "in_channels": 1, "layers": [1] * 4, "channels": [8000] * 4}
    with torch.device("meta"):
        like = build_network(**described).state_dict()
    state = {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in like.items()}
    torch.save({"model": state, "architecture": described, "class_names": NAMES}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model.pt: its network would take [\d.]+ GiB"):
        load_model(tmp_path)


def mutants(content: bytes, count: int, seed: int):
    """The content with a few bytes changed, cut off, or removed."""
    random = np.random.default_rng(seed)
    for number in range(count):
        changed = bytearray(content)
        # half of them where the pickle and the names are, and not the weights
        end = len(content) if number % 2 else min(len(content), 6000)
        for place in random.integers(0, end, random.integers(1, 9)):
            changed[place] = random.integers(0, 256)
        if number % 5 == 0:
            del changed[random.integers(0, len(content)) :]
        if number % 7 == 0:
            start = random.integers(0, end)
            del changed[start : start + random.integers(1, 64)]
        yield bytes(changed)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_damaged_models_are_refused_by_name_or_work(own, tmp_path, ending):
    path = tmp_path / f"damaged.{ending}"
    content = own.with_suffix(f".{ending}").read_bytes()
    outcomes = {"works": 0, "refused": 0}
    for mutant in mutants(content, 40, seed=27):
        path.write_bytes(mutant)
        try:
            network, info = load_model(path)
        except InputError as error:
            outcomes["refused"] += "damaged" in str(error)
        else:
            assert len(info["class_names"]) == 2 and network(torch.zeros(1, 1, 32, 32)).shape == (1, 2)
            outcomes["works"] += 1
    assert all(outcomes.values()) and sum(outcomes.values()) == 40
