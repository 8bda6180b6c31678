# SPDX-License-Identifier: Apache-2.0
"""Networks of kinds that users write: every plan's verdict is compared with a derivation by hand."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dual_skd.errors import SelectionError
from dual_skd.selection import plan_selection
from dual_skd.selection.tracing import NotFollowed, trace


class Net(nn.Module):
    """A stem, a middle that each test gives, and a classifier."""

    def __init__(self, width: int, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.middle = self.build(width)
        self.last = nn.Linear(width, classes)

    def build(self, width: int) -> nn.Module:
        return nn.Conv2d(width, width, 3, padding=1)

    def features(self, x):
        return self.middle(self.stem(x).relu()).relu().mean((2, 3))

    def forward(self, x):
        return self.last(self.features(x))


def skipped(plan) -> list[str]:
    return plan.skipped["classifier: belongs to the old classes"]


def checked(network: type[Net], elements: str = "random"):
    torch.manual_seed(0)
    plan = plan_selection(network(16, 7), network(8), elements=elements)
    return plan, plan.check()


class Remembering(Net):
    def features(self, x):
        self.seen = super().features(x)
        return self.seen


def test_tensors_that_a_network_keeps_of_a_run_dont_hinder():
    large, small = Remembering(16, 7), Remembering(8)
    for network in (large, small):
        network(torch.zeros(1, 3, 16, 16))
        assert network.seen.requires_grad  # PyTorch copies no such tensor
    plan = plan_selection(large, small)
    assert plan.family == "traced" and plan.check().consistent


class OwnScale(Net):
    def build(self, width):
        return nn.Linear(width, 3 * width)

    def features(self, x):
        q, k, v = self.middle(self.stem(x).flatten(2).transpose(1, 2)).chunk(3, -1)
        return ((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v).mean(1)


def test_an_attentions_own_scale_is_no_difference():
    assert checked(OwnScale)[1].consistent


class MultiHead(Net):
    def build(self, width):
        return nn.MultiheadAttention(width, 2, batch_first=True)

    def features(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.middle(x, x, x)[0].mean(1)


def test_multi_head_attention_with_fewer_channels_per_head_is_consistent():
    assert checked(MultiHead)[1].consistent


class Noisy(Net):
    def features(self, x):
        return F.dropout(super().features(x), 0.5, training=True)


def test_dropout_in_evaluation_is_no_difference_and_no_random_number_is_taken():
    before = torch.get_rng_state()
    torch.manual_seed(0)
    large, small = Noisy(16), Noisy(8)
    state = torch.get_rng_state()
    assert plan_selection(large, small).check().consistent
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


class ChannelSoftmax(Net):
    def features(self, x):
        return super().features(x).softmax(1)


def test_a_softmax_over_the_channels_is_found():
    """Its sum has an exp(0) for each channel that the small network lacks."""
    assert checked(ChannelSoftmax)[1].verdict == "inconsistent"


class Several(Net):
    def __init__(self, width, classes=5):
        super().__init__(width, classes)
        self.age = nn.Linear(width, 1)

    def forward(self, x):
        x = self.features(x)
        return {"diagnosis": self.last(x), "age": self.age(x)}


def test_every_output_has_its_classifier():
    plan, found = checked(Several)
    assert found.consistent
    assert skipped(plan) == ["last.weight", "last.bias", "age.weight", "age.bias"]


class Single(Net):
    def __init__(self, width, classes=1):
        super().__init__(width, 1)
        self.weigh = nn.Conv2d(width, 1, 1)

    def features(self, x):
        x = self.stem(x).relu()
        return (x * self.weigh(x).sigmoid()).mean((2, 3))

    def forward(self, x):
        return self.last(self.features(x)).squeeze(1).sigmoid()


def test_one_number_per_image_has_a_classifier_too():
    plan, found = checked(Single)
    assert found.consistent and skipped(plan) == ["last.weight", "last.bias"]


class Tied(Net):
    def __init__(self, width, classes=5):
        super().__init__(width, classes)
        self.again = nn.Conv2d(width, width, 3, padding=1)
        self.again.weight = self.middle.weight

    def features(self, x):
        return self.again(self.middle(self.stem(x))).mean((2, 3))


def test_shared_weights_are_selected_under_both_names():
    plan, found = checked(Tied)
    assert found.consistent and not found.unselected
    chosen = plan.apply()
    assert torch.equal(chosen["again.weight"], chosen["middle.weight"])


class Temperature(Net):
    def __init__(self, width, classes=5):
        super().__init__(width, classes)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def features(self, x):
        return self.temperature * F.normalize(super().features(x), dim=1)


def test_a_lone_number_is_copied():
    plan, found = checked(Temperature)
    assert found.consistent and plan.apply()["temperature"] == 2


class NamedAsInATable(Net):
    def __init__(self, width, classes=5):
        super().__init__(width, classes)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, width)

    def features(self, x):
        return self.out(self.kv(super().features(x)).relu())


def test_a_layer_may_have_the_name_of_a_tables_axis():
    plan, found = checked(NamedAsInATable)
    assert found.consistent and len(plan.axes["kv"]) == 16


class Squeezed(Net):
    def features(self, x):
        return super().features(x).squeeze()


def test_features_without_a_batch_are_compared():
    assert checked(Squeezed)[1].consistent


def test_what_torchscript_compiled_isnt_followed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = Net(8)
        network.middle = torch.jit.script(network.middle)
    with pytest.raises(NotFollowed, match=r"middle is compiled by TorchScript"):
        trace(network, (16, 16))


class Caching(Net):
    """Computes a table once, as the attention of some networks does."""

    def __init__(self, width, classes=5):
        super().__init__(width, classes)
        self.scales = nn.Parameter(torch.ones(1, width, 1, 1))
        self.cache = {}

    def features(self, x):
        if not self.training:
            x = self.stem(x) * self.cache.setdefault("table", self.scales.exp())
        return self.middle(x).mean((2, 3))


def test_what_a_network_caches_in_one_run_isnt_used_in_the_next():
    _plan, found = checked(Caching)
    assert found.consistent


class StaticPadding(Net):
    def __init__(self, width, classes=5, pad=1):
        super().__init__(width, classes)
        self.pad = nn.ConstantPad2d((0, pad, 0, pad), 0.0)

    def features(self, x):
        return self.middle(self.pad(self.stem(x))).amax((2, 3))


def test_padding_made_for_another_image_size_is_no_difference():
    assert plan_selection(StaticPadding(16, 7, pad=2), StaticPadding(8)).check().consistent


class Grey(Net):
    def __init__(self, width, classes=5):
        super().__init__(width, classes)
        self.stem = nn.Conv2d(1, width, 3, 2, 1)


def test_an_image_of_one_channel_takes_the_sum_of_three():
    plan = plan_selection(large := Net(16, 7), Grey(8))
    assert plan.check().consistent
    taken = large.stem.weight[plan.axes["stem"]].sum(1, keepdim=True)
    assert torch.allclose(plan.apply()["stem.weight"], taken)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_network_is_compared_with_a_bare_one(wrap):
    plan = plan_selection(wrap(Net(16, 7)), Net(8))
    assert plan.family == "traced" and len(skipped(plan)) == 2 and plan.check().consistent


def test_a_network_that_cant_be_copied_isnt_checked():
    large, small = Net(16, 7), Net(8)
    small.lines = (line for line in ())  # a generator can't be copied
    found = plan_selection(large, small).check()
    assert found.verdict == "not checked" and "can't be copied" in found.reason


def test_a_network_without_shapes_is_refused_with_the_remedy():
    with pytest.raises(SelectionError, match=r"0\.weight has no shape yet; run the network once"):
        plan_selection(nn.Sequential(nn.LazyConv2d(8, 3)), Net(8))


class Circular(Net):
    def build(self, width):
        return nn.Conv2d(width, width, 3, padding=1, padding_mode="circular")


def test_circular_padding_is_followed():
    plan, found = checked(Circular)
    assert plan.family == "traced" and found.consistent
