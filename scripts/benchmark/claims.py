# SPDX-License-Identifier: Apache-2.0
"""Checks the claims of the plan against the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dual_skd.metrics.intervals import RESAMPLES
from dual_skd.metrics.paired import holm
from scripts.benchmark import robustness
from scripts.benchmark.results import COMPARED_METRICS, Results, is_worse


def claims(results: Results) -> list[str]:
    """Checks every claim; lines of a Markdown list. A claim whose cells haven't all run is open."""
    plan, wanted = results.plan, results.plan["claims"]
    control, method = plan["control"], wanted["method"]
    scarce, full = ([(data, float(fraction)) for data, fraction in wanted[name]] for name in ("scarce", "full"))

    def means(place: tuple[str, float], *rows: str, name: str = "balanced_accuracy") -> np.ndarray:
        return results.shared_means(*place, rows, name)

    claim = partial(_claim, results)
    lines = [
        "## Claims",
        "",
        f"Control: `{control}`; method: `{method}`; means over the seeds that compared rows share.\n",
    ]
    gains = {place: -100 * np.diff(means(place, control, "scratch")).item() for place in scarce}
    lines.append(claim("Selection gains 10 points or more of balanced accuracy over random initialisation on two sets",
                        gains, lambda gain: gain >= 10, 2, "{:+.1f} points"))  # fmt: skip

    lines += _against(results, method, control, scarce)
    gaps = {place: 100 * (means(place, control, method, "large") @ [[-1, 0], [0, -1], [1, 1]]) for place in scarce}
    lines.append(claim(f"`{method}` halves the gap in balanced accuracy between `{control}` and the large model on two "
                        f"sets, large minus `{control}` and minus `{method}`", gaps,
                        lambda gap: 0 < gap[0] and gap[1] <= gap[0] / 2, 2, "{0[0]:+.1f} and {0[1]:+.1f} points",
                        applies=lambda gap: gap[0] > 0))  # fmt: skip
    near = {place: -100 * np.diff(means(place, method, "large")).item() for place in full}
    lines.append(claim(f"`{method}` is within 1.0 point of balanced accuracy of the large model on all the images "
                        "on two sets", near, lambda gap: gap >= -1, 2, "{:+.1f} points"))  # fmt: skip
    size = {place: np.divide(*means(place, method, "large", name="parameters")).item() for place in full}
    lines.append(claim(f"`{method}` has under 1/5 of the large model's parameters", size, lambda share: share < 0.2,
                        len(full), "{:.1%}"))  # fmt: skip
    if "shares" in wanted:

        def more_gain(data: str, few: float, many: float) -> np.ndarray:
            """Points of AUC over the seeds that all four cells have: their mean, least and most."""
            cells = [(data, share, row) for share in (few, many) for row in (control, method)]
            points = 100 * np.array([-1, 1, 1, -1]) @ results.shared_values(cells, "macro_auc")
            return np.array([points.mean(), points.min(), points.max()])

        more = {(data, few): more_gain(data, few, many) for data, few, many in wanted["shares"]}
        lines.append(claim(f"`{method}` gains more AUC over `{control}` with few images than with many, in every seed",
                            more, lambda points: points[1] > 0, len(more),
                            "{0[0]:+.1f} points more ({0[1]:+.1f} to {0[2]:+.1f})"))  # fmt: skip
    places, level = wanted["accuracy"]
    light = [
        ((data, float(fraction)), row)
        for data, fraction in places for row in plan["rows"] if row != "large"
    ]  # fmt: skip
    place, row = max(light, key=lambda one: np.nan_to_num(means(*one, name="val_accuracy").item(), nan=-1))
    sets = " or ".join(data for data, _ in places)
    lines.append(claim(f"accuracy of {level} or better on {sets} (of their light rows the best on validation: `{row}`)",
                        {place: means(place, row, name="accuracy").item()}, lambda value: value >= level, 1,
                        "{:.3f}"))  # fmt: skip
    for one in wanted.get("variants", ()):
        places = [(data, float(share)) for data, share in one["on"]]
        lines += _against(results, one["method"], one["control"], places)
        lines.append(_all_together(results, [(one["method"], one["control"], places), (method, control, scarce)]))
    return lines


def _against(results: Results, method: str, control: str, places: Sequence[tuple[str, float]]) -> list[str]:
    """The claims of a method against its control, with a family of p values of their own."""
    claim = partial(_claim, results)
    measured = {place: results.differences(*place, method, control) for place in places}
    family = [(place, name) for place in places for name in COMPARED_METRICS if measured[place]]
    p = dict(zip(family, holm([measured[place][name].p for place, name in family], resamples=RESAMPLES), strict=True))

    def smallest(names: Iterable[str], counts: Callable[[str, float], bool]) -> dict[tuple[str, float], float]:
        """The smallest p of those metrics whose difference counts, by place; 1 where none does."""
        return {
            place: min((p[place, name] for name in names if counts(name, measured[place][name].value)), default=1.0)
            if measured[place] else float("nan") for place in places
        }  # fmt: skip

    lines = [
        claim(f"`{method}` has a better balanced accuracy or AUC than `{control}` on two sets, p < 0.05 (Holm over "
               "these sets and metrics)", smallest(COMPARED_METRICS[:2], lambda name, value: value > 0),
               lambda p: p < 0.05, 2, "p = {:.3f}"),
    ]  # fmt: skip
    ratio = {
        place: np.divide(*results.shared_means(*place, (method, control), "ece")).item() for place in places
    }  # fmt: skip
    lines.append(claim(f"`{method}` at least halves the ECE of `{control}` on two sets", ratio,
                        lambda share: share <= 0.5, 2, "{:.2f} times"))  # fmt: skip
    calibrated = {place: results.differences(*place, method, control, "calibrated") for place in places}
    nll = {place: found["nll"] for place, found in calibrated.items() if found}
    left = dict.fromkeys(places, np.full(2, np.nan)) | {
        place: np.array([one.value, p])
        for (place, one), p in zip(nll.items(), holm([one.p for one in nll.values()], resamples=RESAMPLES), strict=True)
    }
    lines.append(claim(f"`{method}` has a lower NLL than `{control}` with a temperature fitted for each on validation "
                        "images on two sets, p < 0.05 (Holm)", left, lambda pair: pair[0] < 0 and pair[1] < 0.05, 2,
                        "{0[0]:+.3f}, p = {0[1]:.3f}"))  # fmt: skip
    lines.append(claim(f"`{method}` is nowhere significantly worse than `{control}`",
                        smallest(COMPARED_METRICS, is_worse), lambda p: p >= 0.05, len(places),
                        "smallest p of a worse metric {:.3f}"))  # fmt: skip
    shift = robustness.Robustness(results.folder, results.plan, results.hidden)
    for text, value, holds in (
        ("has a mean accuracy under corruption not below that of", robustness.corrupted, lambda gap: gap >= 0),
        ("loses a smaller share of its accuracy under corruption than", robustness.drop, lambda gap: gap < 0),
    ):
        found = robustness.differences(shift, method, control, places, value)
        gaps = {place: 100 * gap for place, gap in found.items()}
        if gaps:
            lines.append(claim(f"`{method}` {text} `{control}`", gaps, holds, len(gaps), "{:+.1f} points"))
        else:
            lines.append(f"* **open**: `{method}` {text} `{control}`: not asked for by the plan.")
    return lines


def _all_together(results: Results, pairs: Sequence[tuple[str, str, Sequence[tuple[str, float]]]]) -> str:
    """What is left of a variant's p values when those of the method, looked at before, count as well."""
    p = {
        (method, control, place, name): one.p
        for method, control, places in pairs for place in places
        for name, one in results.differences(*place, method, control).items() if name in COMPARED_METRICS
    }  # fmt: skip
    corrected = dict(zip(p, holm(list(p.values()), resamples=RESAMPLES), strict=True))
    variant, control, places = pairs[0]
    shown = [
        f"{data} {share:.0%} balanced accuracy {corrected[variant, control, (data, share), 'balanced_accuracy']:.3f}, "
        f"AUC {corrected[variant, control, (data, share), 'macro_auc']:.3f}"
        for data, share in places if (variant, control, (data, share), "macro_auc") in corrected
    ]  # fmt: skip
    return f"* p of `{variant}`, Holm over the comparisons of `{pairs[1][0]}`, too ({len(p)}): {'; '.join(shown)}."


def _claim(
    results: Results,
    text: str,
    values: dict[tuple[str, float], Any],
    holds: Callable[[Any], bool],
    needed: int,
    form: str,
    applies: Callable[[Any], bool] = lambda value: True,
) -> str:
    """One line: holds, doesn't hold, open while too few sets are measured to tell, void where it applies to too few."""
    shown, yes, other, unknown = [], 0, 0, 0
    for (data, fraction), value in values.items():
        known = not np.isnan(value).any()
        text_of = form.format(value) if known else "not run"
        shown.append(f"{data} {fraction:.0%}{results.mark(data, fraction)} {text_of}")
        yes += known and bool(holds(value))
        other += known and not bool(applies(value))
        unknown += not known
    if yes >= needed:
        state = "holds"
    elif yes + unknown >= needed:
        state = "open"
    else:
        state = "void" if yes + unknown + other >= needed else "does not hold"
    return f"* **{state}**: {text}: {'; '.join(shown)}."
