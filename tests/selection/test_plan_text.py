# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from timm.models.convnext import ConvNeXt

from dual_skd.selection import plan_selection
from dual_skd.utils.wording import WIDTH


def convnext(scale: int, classes: int = 3) -> ConvNeXt:
    return ConvNeXt(3, classes, dims=[4 * scale, 6 * scale, 8 * scale, 10 * scale], depths=[1, 1, 1, 1])


def test_a_plan_says_what_is_selected_of_what():
    large, small = convnext(2, classes=5), convnext(1)
    plan = plan_selection(large, small)
    counts = {name: value.numel() for name, value in small.named_parameters()}
    left = counts["head.fc.weight"] + counts["head.fc.bias"]
    total, large_total = sum(counts.values()), sum(value.numel() for value in large.parameters())
    lines = repr(plan).splitlines()
    assert lines[:4] == [
        "SelectionPlan: ConvNeXt -> ConvNeXt",
        "  family        convnext; the axes are consistent",
        f"  tensors       {len(counts) - 2} of {len(counts)} selected",
        f"  parameters    {total - left:,} of {total:,} selected; {large_total:,} to select from",
    ]
    assert lines[4].startswith("  not selected  head.fc.weight, head.fc.bias: classifier")
    assert "doubts" not in repr(plan) and max(map(len, lines)) <= WIDTH
    assert plan.skipped == {reason: names for reason, names in plan.skipped.items() if reason and names}
    assert [name for names in plan.skipped.values() for name in names] == ["head.fc.weight", "head.fc.bias"]


def test_a_plan_of_unknown_weights_says_its_doubts():
    plan = plan_selection(
        {"a.weight": torch.ones(4, 2), "n.running_mean": torch.ones(4)}, {"a.weight": torch.ones(2, 2)}
    )
    assert plan.doubts == [
        "channels are matched by size alone: no table was used, and no image followed",
        "no classifier is recognised, so it is selected like any other layer",
    ]
    assert repr(plan).splitlines() == [
        "SelectionPlan: weights -> weights",
        "  family      generic; consistency of the axes is not verified",
        "  tensors     1 of 1 selected",
        "  parameters  4 of 4 selected; 8 to select from",  # statistics aren't parameters
        "  doubts      channels are matched by size alone: no table was used, and no",
        "              image followed",
        "              no classifier is recognised, so it is selected like any other",
        "              layer",
    ]


def test_the_published_index_rule_is_no_verified_plan():
    plan = plan_selection(convnext(2), convnext(1), mode="reference")
    assert not plan.verified and plan.doubts == ["the published index rule has no named axes"]


def test_a_notebook_shows_every_tensor_and_no_name_is_code():
    hostile = "<img src=x>.weight"
    page = plan_selection({hostile: torch.ones(4, 2)}, {hostile: torch.ones(2, 2)})._repr_html_()
    assert "<img" not in page and page.count("&lt;img src=x&gt;.weight") == 2  # as tensor and as source
    assert "<td>2 x 2</td>" in page and "<td>4 x 2</td>" in page and "<td>0.500</td>" in page
    assert page.index("<details>") < page.index("Tensor by tensor") < page.index("2 x 2")


def test_a_report_is_a_table_of_its_own_in_a_notebook():
    plan = plan_selection(convnext(2), convnext(1))
    report = plan.report()
    assert repr(report) == f"SelectionReport: {len(report) - 2} of {len(report)} tensors selected; a row for each"
    assert report._repr_html_() in plan._repr_html_() and report._repr_html_().count("<tr>") == len(report) + 1
