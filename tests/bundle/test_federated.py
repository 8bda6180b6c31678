# SPDX-License-Identifier: Apache-2.0
"""Federations in this process: sites that share the start, train in rounds, and never send or take bad numbers."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from monai.engines.utils import IterationEvents
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from dual_skd import load_model
from dual_skd.errors import InputError, input_error_behind
from dual_skd.runs.lock import released_afterwards
from dual_skd.runs.places import bundle_root
from dual_skd.serving.federated import AUXILIARY, DualModelAlgo, normalisation_of, tensors_of
from scripts.benchmark.federated import federate
from scripts.federated.split_by_site import split_by_site

CLASSES = ["interstitial", "normal", "nodule"]
NAN = float("nan")


@pytest.fixture
def options(tmp_path, demo, tiny) -> dict:
    """Of the sites ``fixed`` and ``mobile``, which have the demo's images by machine."""
    split_by_site(demo, tmp_path, column="machine")
    places = {"dataset_dir": f"{tmp_path}/{{site}}", "output_dir": f"{tmp_path}/{{site}}/output"}
    return tiny | places | {"class_names": CLASSES, "device": "cpu", "num_workers": 0, "rounds": 2}


@pytest.fixture
def join(options, monkeypatch):
    """Starts a site; keywords are those of the client, ``given`` further options."""
    monkeypatch.setenv("TQDM_DISABLE", "1")

    def start(name: str, given: dict | None = None, kind: type[MonaiAlgo] = DualModelAlgo, **keywords) -> MonaiAlgo:
        keywords = {"send_weight_diff": False} | keywords
        site = kind(bundle_root(), train_kwargs=options | (given or {}), **keywords)
        site.initialize({ExtraItems.CLIENT_NAME: name})
        return site

    with released_afterwards():
        yield start


def weights_of(site: DualModelAlgo) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in tensors_of(site._networks()).items()}


def sent(weights: dict[str, torch.Tensor]) -> ExchangeObject:
    return ExchangeObject(weights=dict(weights))


def watch(site: MonaiAlgo) -> list[tuple[float, float, float]]:
    """Learning rate, weight of the distillation and momentum of every iteration to come."""
    seen: list[tuple[float, float, float]] = []

    def note(engine) -> None:
        output = engine.state.output
        seen.append((engine.optimizer.param_groups[0]["lr"], output["skd_weight"], output["momentum"]))

    site.trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, note)
    return seen


def test_all_sites_start_with_the_same_bits_which_are_the_large_networks(join, tiny):
    fixed, mobile = (weights_of(join(name, exchange="pair")) for name in ("fixed", "mobile"))
    assert list(fixed) == list(mobile) and all(torch.equal(fixed[name], mobile[name]) for name in fixed)
    large = torch.load(tiny["pretrained"], weights_only=True)["layer1.0.conv1.weight"]
    for name in ("layer1.0.conv1.weight", AUXILIARY + "layer1.0.conv1.weight"):
        assert torch.isin(fixed[name], large).all()


def test_rounds_are_one_training(join, tmp_path):
    """Two rounds of an epoch at one site are two epochs at once: same weights, rates, ramps and momentum."""
    runs = []
    for epochs, rounds in ((1, 2), (2, 1)):
        site = join(
            "fixed",
            {"rounds": rounds, "method": "dual", "batch_size": 4, "output_dir": str(tmp_path / str(rounds))},
            local_epochs=epochs,
        )
        seen, weights = watch(site), weights_of(site)
        torch.manual_seed(0)
        for _ in range(rounds):
            site.train(sent(weights))
            weights = weights_of(site)
        runs.append((seen, weights))
        assert site.trainer.state.epoch == 2
    (seen, weights), (seen_at_once, weights_at_once) = runs
    assert seen == seen_at_once and len(seen) >= 4
    assert all(torch.equal(weights[name], weights_at_once[name]) for name in weights)
    steps = len(seen)  # MONAI's cosine over all rounds, by its formula; fewer than ten steps have no warm-up
    assert [rate for rate, _, _ in seen] == pytest.approx(
        [0.002 * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    )
    assert [momentum for _, _, momentum in seen] == pytest.approx([(1 + k) / (10 + k) for k in range(steps)])


def test_the_average_counts_a_site_by_its_images(join):
    sites = [join(name) for name in ("fixed", "mobile")]
    start = weights_of(sites[0])
    found = federate(sites, start, rounds=2)
    images = [len(site.trainer.data_loader.dataset) for site in sites]
    assert [site.get_weights().statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] for site in sites] == images
    assert images[0] != images[1]
    for name, values in found.items():
        one, other = (weights_of(site)[name].double() for site in sites)
        expected = (one * images[0] + other * images[1]) / sum(images)
        torch.testing.assert_close(values.double(), expected, rtol=1e-6, atol=1e-7)
    assert not torch.equal(found["conv1.weight"], start["conv1.weight"])


def test_a_site_keeps_its_report_and_measures_the_average(join, tmp_path):
    site = join("fixed", {"rounds": 1})
    weights = weights_of(site)
    site.train(sent(weights))
    average = {name: values * 0.5 for name, values in weights_of(site).items()}
    measured = site.evaluate(sent(average)).metrics
    assert 0 <= measured["accuracy"] <= 1
    site.finalize()
    output = tmp_path / "fixed" / "output"
    assert {path.name for path in output.iterdir()} >= {"run.json", "datalist.json", "metrics.json", "models"}
    kept, _ = load_model(output)
    torch.testing.assert_close(kept.state_dict()["conv1.weight"], average["conv1.weight"])
    with pytest.raises(InputError, match="holds a finished run"):
        join("fixed", {"rounds": 1})
    join("fixed", {"rounds": 1, "fresh": True})
    assert len(list(output.glob("former_*/models/model.pt"))) == 1 and not (output / "models").exists()


@pytest.mark.parametrize("normalisation", ["average", "local"])
def test_the_pair_is_exchanged_as_differences(join, normalisation):
    site = join("fixed", exchange="pair", normalisation=normalisation, send_weight_diff=True)
    start = weights_of(site)
    local = normalisation_of(site._networks()) if normalisation == "local" else set()
    site.train(sent(start))
    update = site.get_weights().weights
    assert set(update) == set(start) - local and any(name.startswith(AUXILIARY) for name in update)
    after = weights_of(site)
    for name, values in update.items():
        torch.testing.assert_close(start[name] + values, after[name])


def test_local_normalisation_stays_at_the_site(join):
    site = join("fixed", normalisation="local")
    start, local = weights_of(site), normalisation_of(site._networks())
    assert {"bn1.weight", "bn1.running_mean", "layer1.0.bn2.num_batches_tracked"} <= local
    assert "conv1.weight" not in local and len(local) % 5 == 0
    site.train(sent({name: values for name, values in start.items() if name not in local}))
    assert not local & set(site.get_weights().weights)
    mine = weights_of(site)
    site.evaluate(sent({name: torch.zeros_like(values) for name, values in start.items()}))
    now = weights_of(site)
    assert all(torch.equal(now[name], mine[name]) for name in local)
    assert not now["conv1.weight"].any()


def test_a_round_with_bad_numbers_is_as_if_the_site_had_dropped_out(join):
    site = join("mobile", exchange="pair")
    start, prepare = weights_of(site), site.trainer.prepare_batch
    site.trainer.prepare_batch = lambda *args, **kwargs: (
        prepare(*args, **kwargs)[0] * NAN,
        *prepare(*args, **kwargs)[1:],
    )
    with pytest.raises(InputError, match="The input holds NaN or infinite numbers in epoch 1, iteration 1"):
        site.train(sent(start))
    assert (site.trainer.state.epoch, site.trainer.state.iteration) == (0, 0)
    site.trainer.prepare_batch = prepare
    for number in (1, 2):
        site.train(sent(start))
        assert site.trainer.state.epoch == number
        assert site.trainer.state.iteration == number * site.trainer.state.epoch_length
    assert all(torch.isfinite(values).all() for values in site.get_weights().weights.values())


def test_bad_weights_are_neither_sent_nor_taken(join):
    site = join("fixed")
    start = weights_of(site)
    site.train(sent(start))
    with torch.no_grad():
        site.trainer.network.conv1.weight[0] = math.inf
    with pytest.raises(InputError, match=r"this site hold NaN or infinite numbers in 1 tensor \(conv1.weight\)"):
        site.get_weights()
    start["fc.bias"][0] = NAN
    with pytest.raises(InputError, match="The global weights hold NaN"):
        site.evaluate(sent(start))


def test_another_start_is_told_and_another_network_refused(join, caplog):
    site = join("fixed")
    start = weights_of(site)
    site.evaluate(sent(start | {"fc.bias": start["fc.bias"] + 1}))
    assert "1 tensor of the first global weights aren't those that this site has selected (fc.bias)" in caplog.text
    other = join("mobile", exchange="pair")
    with pytest.raises(InputError, match=r"The server's fc.bias is \(2,\), this site's is \(3,\)"):
        other.evaluate(sent(start | {"fc.bias": torch.zeros(2)}))
    with pytest.raises(InputError, match=r"The server's auxiliary.conv1.weight is missing"):
        other.evaluate(sent(start))


def test_sites_with_other_classes(join, options, tmp_path):
    table = tmp_path / "mobile" / "datalist.csv"
    rows = list(csv.DictReader(table.open(encoding="utf-8")))

    def write(rows: list[dict]) -> None:
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    write([row for row in rows if row["label"] != "nodule"])  # a class less: the classifier keeps its place
    site = join("mobile")
    assert site.trainer.network.fc.out_features == 3
    site.train(sent(weights_of(site)))
    assert site.evaluate(site.get_weights()).metrics["accuracy"] >= 0
    write([row | {"label": "effusion"} if row["label"] == "nodule" else row for row in rows])
    with pytest.raises(
        InputError, match=r"mobile can't take part: .*datalist.csv has labels that are none of the classes"
    ):
        join("mobile", {"output_dir": str(tmp_path / "again")})


def test_words_that_are_none(tmp_path, join, run, tiny):
    with pytest.raises(InputError, match="Unknown exchange 'both'"):
        DualModelAlgo(str(tmp_path), exchange="both")
    with pytest.raises(InputError, match="the method has one network"):
        join("fixed", {"method": "single"}, exchange="pair")
    with pytest.raises(Exception) as caught:
        run("train.json", **tiny, output_dir=str(tmp_path / "alone"), rounds=2)
    assert "rounds is 2, and only a federation has rounds" in str(input_error_behind(caught.value))
