# SPDX-License-Identifier: Apache-2.0
"""Surveys weight selection over network families: is what it copies consistent, or is it refused?

    OMP_NUM_THREADS=1 python -m scripts.measure.selection_survey [--lines survey.jsonl] [--only WORD ...] [--write]

Each pair of a large and a small network (``selection_pairs``) is planned and checked by ``SelectionPlan.check``, at
random weights. It is refused when it is planned, or in training by its check, with a doubt of the plan or without.
A line of JSON per pair goes to ``--lines``; pairs that are in it already are left out. ``--write``
makes docs/results/families/selection.csv of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import monai.networks.nets as monai_nets
import timm
import torch
import torchvision.models as torchvision_models
from torch import nn

from dual_skd.errors import SelectionError
from dual_skd.networks import build_network
from dual_skd.selection import plan_selection
from dual_skd.selection.families import FAMILIES
from dual_skd.utils.files import write_csv
from scripts import ROOT
from scripts.measure.selection_pairs import MONAI, TIMM, TORCHVISION, Row

TABLE = ROOT / "docs" / "results" / "families" / "selection.csv"
COLUMNS = ("library", "large", "small", "kind", "how", "verdict", "by", "reason", "selected", "tensors")


def _timm(name: str, **options: Any) -> nn.Module:
    if {"width", "depths"} & options.keys():
        return build_network(name, num_classes=5, in_channels=3, **options)
    return timm.create_model(name, num_classes=5, **options)


LIBRARIES: dict[str, tuple[Callable[..., nn.Module], list[Row]]] = {
    "timm": (_timm, TIMM),
    "monai": (lambda name, **options: getattr(monai_nets, name)(**options), MONAI),
    "torchvision": (lambda name, **options: getattr(torchvision_models, name)(**options), TORCHVISION),
}


def pairs() -> Iterator[tuple[str, str, str, str, dict[str, Any], dict[str, Any]]]:
    """Library, large, small, kind, options of the large one and of the small one."""
    for library, (_, rows) in LIBRARIES.items():
        for large, own, changed, siblings in rows:
            for kind, options in changed.items():
                yield library, large, f"{large} {_words(options)}", kind, own, own | options
            for sibling in siblings:
                yield library, large, sibling, "sibling", own, own


def _words(options: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items()).replace(", ", ",")


def survey(library: str, large: str, small: str, kind: str, own: dict[str, Any], options: dict[str, Any]) -> dict:
    """The result of one pair."""
    build = LIBRARIES[library][0]
    found: dict[str, Any] = {"library": library, "large": large, "small": small, "kind": kind}
    start = time.perf_counter()
    try:
        networks = build(large, **own), build(small.split(" ")[0], **options)
    except Exception as error:  # a name or an option that this version of the library lacks
        return found | {"verdict": "can't be built", "reason": f"{type(error).__name__}: {error}".splitlines()[0]}
    try:
        plan = plan_selection(*networks)
    except SelectionError as error:
        return found | {"verdict": "refused", "by": "plan", "reason": str(error)}
    rows = plan.report()
    check = plan.check()
    verdict, by = check.verdict, ""
    if check.verdict == "inconsistent" or (plan.doubts and not check.consistent):  # as training decides
        verdict, by = "refused", "doubt" if plan.doubts else "check"
    elif check.consistent and not plan.verified:
        verdict = "consistent in part"
    reason = plan.doubts[0] if plan.doubts else str(check)
    return found | {
        "how": {"generic": "by size"}.get(plan.family, "table" if plan.family in FAMILIES else plan.family),
        "verdict": verdict,
        "by": by,
        "reason": reason.removeprefix("consistent").removeprefix("; "),
        "selected": sum(row.selected for row in rows),
        "tensors": len(rows),
        "doubts": plan.doubts[:3],
        "seconds": round(time.perf_counter() - start, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, default=Path("selection_survey.jsonl"))
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the large networks' names")
    parser.add_argument("--write", action="store_true", help="write docs/results/families/selection.csv")
    args = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    lines = args.lines.read_text(encoding="utf-8").splitlines() if args.lines.exists() else []
    known = {tuple(line[name] for name in COLUMNS[:4]): line for line in map(json.loads, lines)}
    for pair in pairs():
        if pair[:4] not in known and any(word in pair[1] for word in args.only):
            torch.manual_seed(0)
            known[pair[:4]] = survey(*pair)
            with args.lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[pair[:4]]) + "\n")
            gc.collect()
    built = [line for line in known.values() if line["verdict"] != "can't be built"]
    print(*(f"{count:4d} {verdict}" for verdict, count in Counter(line["verdict"] for line in built).items()), sep="\n")
    if args.write:
        write_csv(TABLE, [COLUMNS, *([line.get(name, "") for name in COLUMNS] for line in built)])


if __name__ == "__main__":
    main()
