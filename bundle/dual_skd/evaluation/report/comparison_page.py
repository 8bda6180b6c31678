# SPDX-License-Identifier: Apache-2.0
"""Two runs side by side, as an HTML page and as lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dual_skd.evaluation.comparison import shared_images
from dual_skd.evaluation.pages.rendering import Table, number, render
from dual_skd.evaluation.report.metric_names import METRICS
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.paired import SIGNIFICANCE
from dual_skd.runs.recorder import LOWER_IS_BETTER
from dual_skd.utils.wording import WIDTH, aligned, counted, first_few, metric_words

Options = Mapping[str, tuple[Any, Any]]


def comparison_page(
    found: Mapping[str, Any], names: tuple[str, str], options: Options, *, split: str, unfinished: str = "",
    optimistic: bool = False,
) -> str:  # fmt: skip
    """The whole HTML document.

    Args:
        found: of :func:`dual_skd.evaluation.comparison.compare_runs`.
        names: of the two runs.
        options: of training that differ, see :func:`dual_skd.evaluation.comparison.different_options`.
        split: which evaluation.
        unfinished: the warning that a training hasn't come to its end.
        optimistic: whether the images chose one of the models.
    """
    entries = [
        [label, f"{better} is better", number(one["one"]), number(one["other"]),
         Estimate(one["difference"], one["low"], one["high"], one["reason"]), p_value(one["p"]), p_value(one["p_holm"])]
        for label, better, one in _entries(found, METRICS.__getitem__)
    ]  # fmt: skip
    head = ["metric", "direction", *names, f"{names[0]} − {names[1]}", "p", "p (Holm)"]
    different = [[name, *map(str, values)] for name, values in options.items()]
    return render(
        "comparison.html",
        title=f"{names[0]} and {names[1]} compared on {counted(found['shared'], found['unit'])} ({split})",
        unfinished=unfinished,
        optimistic=optimistic,
        verdict=verdict(found, names),
        shared_images=shared_images(found, names),
        reason=found["reason"],
        differences=Table(head, entries),
        family=family(found),
        right_and_wrong=right_and_wrong(found, names),
        options=Table(["option", *names], different),
    )


def terminal_lines(found: Mapping[str, Any], names: tuple[str, str], options: Options) -> Iterator[str]:
    """What was found, in lines of at most 80 characters, unless names are longer."""
    yield f"A  {names[0]}"
    yield f"B  {names[1]}"
    apart = ", ".join(f"{name} ({one}, {other})" for name, (one, other) in options.items())
    for sentence in (shared_images(found, ("A", "B")), found["reason"], f"They differ in {apart}." if apart else ""):
        yield from textwrap.wrap(sentence, WIDTH)
    yield ""
    entries = list(_entries(found, metric_words, areas=not found["metrics"]))
    rows = [["", "A", "B", "A - B", "95 % interval", "p (Holm)"]]
    for direction in ("higher", "lower"):
        group = [entry for entry in entries if entry[1] == direction]
        rows += [[f"{direction} is better", *[""] * 5]] if group else []
        rows += [
            [f"  {label}", number(one["one"]), number(one["other"]), _signed(one["difference"]), _limits(one),
             p_value(one["p_holm"])]
            for label, _, one in group
        ]  # fmt: skip
    yield from aligned(rows)
    for reason in dict.fromkeys(one["reason"] for _, _, one in entries if one["reason"]):
        labels = [label for label, _, one in entries if one["reason"] == reason]
        yield from textwrap.wrap(f"{', '.join(labels)}: {reason}.", WIDTH)
    yield ""
    for sentence in (right_and_wrong(found, ("A", "B")), family(found, 8), verdict(found, ("A", "B"))):
        yield from textwrap.wrap(sentence, WIDTH)


def verdict(found: Mapping[str, Any], names: tuple[str, str]) -> str:
    """The sentence that says which differences are beyond chance."""
    better: dict[str, list[str]] = {name: [] for name in names}
    for label, direction, one in _entries(found, metric_words):
        if one["p_holm"] is not None and one["p_holm"] < SIGNIFICANCE:
            first = (one["difference"] > 0) == (direction == "higher")
            better[names[0 if first else 1]].append(label)
    better_in = [f"{name} is better in {', '.join(labels)}" for name, labels in better.items() if labels]
    if better_in:
        return f"Beyond chance (p below {SIGNIFICANCE} after Holm): {'; '.join(better_in)}."
    if not found["hypotheses"]:
        return "No metric could be tested for chance."
    count, unit = (found["patients"], "patient") if found["patients"] else (found["shared"], found["unit"])
    why = f": {counted(count, f'{unit} is', f'{unit}s are')} too few for that" if found["few"] else ""
    return f"No difference is beyond chance (p below {SIGNIFICANCE} after Holm){why}."


def right_and_wrong(found: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Who is right about the images, in a sentence; "" with several labels per image."""
    right = found["right"]
    if right is None:
        return ""
    return (
        f"Both are right about {counted(right['both'], found['unit'])}, {names[0]} alone about {right['only_one']}, "
        f"{names[1]} alone about {right['only_other']}, neither about {right['neither']}; the p value of the accuracy "
        "is McNemar's."
    )


def family(found: Mapping[str, Any], most: int | None = None) -> str:
    """How many hypotheses Holm's correction is for, and which, at most so many, in a sentence; "" without any."""
    hypotheses = [" = ".join(same) for same in found["hypotheses"]]
    if not hypotheses:
        return ""
    number = counted(len(hypotheses), "hypothesis", "hypotheses")
    return f"Holm's correction is for {number}: {first_few(hypotheses, most or len(hypotheses))}."


def p_value(p: float | None) -> str:
    """A p value to three digits."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _entries(
    found: Mapping[str, Any], name_of: Callable[[str], str], *, areas: bool = True
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What is compared, whether higher or lower is better, and the numbers."""
    for name, one in found["metrics"].items():
        yield name_of(name), "lower" if name in LOWER_IS_BETTER else "higher", one
    for area in found["areas"] if areas else ():
        yield f"AUC of {area['class']}", "higher", area


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _limits(one: Mapping[str, Any]) -> str:
    return "–" if one["low"] is None else f"{one['low']:+.3f} to {one['high']:+.3f}"
