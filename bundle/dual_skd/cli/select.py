# SPDX-License-Identifier: Apache-2.0
"""``dual-skd select``: large weights in, small weights and a table per tensor out.

dual-skd select --large vit_small.safetensors --small vit_tiny.pth --out tiny.safetensors --report tiny.csv

With a budget in place of a small network it proposes small networks, see :mod:`.select_budget`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dual_skd.cli import select_budget
from dual_skd.cli.shared import write_lines
from dual_skd.errors import InputError
from dual_skd.options import Training, read
from dual_skd.options.arguments import Parser, given
from dual_skd.options.choices import ElementRule, LayerRule
from dual_skd.selection.families import FAMILIES
from dual_skd.utils.wording import as_word, closing, in_shell

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dual_skd.selection.view import View


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``select``."""
    parser.add_argument(
        "--large", required=True, nargs="+", metavar="FILE|NAME",
        help="weights file of the large network, or a network name; with a budget also NAME=FILE, and several",
    )  # fmt: skip
    parser.add_argument(
        "--small", metavar="FILE|NAME", help="weights file of the small network's shapes, or a network name"
    )
    parser.add_argument("--small-options", metavar="JSON", help="options of the named small network (default: {})")
    parser.add_argument(
        "--out", metavar="PATH",
        help=f"small weights, .safetensors or .pt; with a budget a folder (default: {select_budget.FOLDER})",
    )  # fmt: skip
    parser.add_argument("--report", metavar="FILE", help="CSV table with one row per tensor (default: none)")
    rules, blocks = ", ".join(get_args(ElementRule)), ", ".join(get_args(LayerRule))
    parser.add_argument(
        "--elements", default="uniform", metavar="RULE", help=f"which channels ({rules}; default: uniform)"
    )
    parser.add_argument(
        "--layers", default="first", metavar="RULE",
        help=f'which blocks ({blocks}, or JSON such as "[0, 2, 5]"; default: first)',
    )  # fmt: skip
    parser.add_argument(
        "--mode", default="structured", metavar="NAME",
        help="by named axes, or the published index rule, to compare (structured, reference; default: structured)",
    )  # fmt: skip
    parser.add_argument(
        "--family", metavar="NAME", help=f"of the networks ({', '.join(FAMILIES)}, generic; default: recognised)"
    )
    for which, usual in (("large", "64 channels each"), ("small", "as wide as the large ones")):
        parser.add_argument(
            f"--{which}-heads", type=int, metavar="N", help=f"attention heads of the {which} one (default: {usual})"
        )
    for which in ("large", "small"):
        parser.add_argument(
            f"--{which}-grid", type=int, nargs="+", metavar="N",
            help=f"tokens per axis of the {which} one (default: square or cubic)",
        )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="of the rule random, and of what isn't selected (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--selected-only", action="store_true", help="write the selected tensors only, not the small network's others"
    )
    select_budget.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Runs the selection, or proposes small networks for a budget, and returns the exit status."""
    layers = _json(args.layers, "--layers") if args.layers[:1] in "[{" else args.layers
    if select_budget.asked(args):
        return select_budget.main(args, layers)
    if args.small is None or args.out is None:
        raise InputError("Expected --small FILE|NAME and --out FILE, or a budget: --params, --macs or --ms.")
    if len(args.large) > 1:
        raise InputError("Several large networks are compared with a budget alone; give one, or --params.")
    return _select(args, layers)


def _select(args: argparse.Namespace, layers: Any) -> int:
    from dual_skd.networks.weight_files import ENDINGS, write_weights  # bring PyTorch, which help doesn't need
    from dual_skd.selection.plan import plan_selection

    out = Path(args.out)
    if out.suffix not in ENDINGS:
        raise InputError(f"{out}: expected a file ending in {', '.join(ENDINGS)}")
    large = _large_network(args, args.large[0])
    small = _small_network(args.small, _json(args.small_options or "{}", "--small-options"), args.seed)
    same = ("elements", "seed", "mode", "family", "large_heads", "small_heads", "large_grid", "small_grid")
    plan = plan_selection(large, small, layers=layers, **{name: getattr(args, name) for name in same})
    selected = plan.apply()
    rest = {} if args.selected_only else dict(small if isinstance(small, dict) else small.state_dict())
    write_weights(out, rest | selected)
    if args.report:
        plan.write_report(args.report)
    rows = [*plan.summary(), ("table", Path(args.report) if args.report else "")]
    write_lines(*closing(f"Selected: {out}", rows, _next_command(args)).splitlines())
    return 0


def _next_command(args: argparse.Namespace) -> str:
    """The training that starts with these weights; a network known by its weights alone can't be trained by name."""
    from dual_skd.networks.weight_files import ENDINGS

    if Path(args.small).suffix in ENDINGS:
        return ""
    words = ["dual-skd", "train", "DATA", "--pretrained", as_word(args.out)]
    options = json.loads(args.small_options or "{}")
    for name in ("spatial_dims", "image_size"):  # options of the training itself
        words += [f"--{name}", str(options.pop(name))] if name in options else []
    own = {name: value for name, value in options.items() if name not in ("num_classes", "in_channels")}  # of the data
    for role in ("large", "small"):  # of equal networks all weights are selected
        words += [f"--{role}", args.small, *([f"--{role}_options", json.dumps(own)] if own else [])]
    return " ".join(map(in_shell, words))


def _large_network(args: argparse.Namespace, name: str) -> View | dict[str, Tensor]:
    from dual_skd.networks.weight_files import ENDINGS, load_state_file

    values = given(args, Training, select_budget.LARGE)
    if Path(name).suffix in ENDINGS:
        if values:
            raise InputError(f"--{next(iter(values)).replace('_', '-')} is of a network by name; {name} is a file.")
        return load_state_file(name)
    from dual_skd.training.parent import load_parent  # only here: it brings timm and MONAI

    options = read(Training, values)
    found = load_parent(name, options.pretrained, options.large_options)
    if found is None:
        raise InputError("--pretrained none gives no weights to select from; give wheel, hub or a file.")
    return found


def _small_network(name: str, options: Any, seed: int) -> nn.Module | dict[str, Tensor]:
    import torch

    from dual_skd.networks.weight_files import ENDINGS, load_state_file

    if Path(name).suffix in ENDINGS:
        return load_state_file(name)
    if not isinstance(options, dict):
        raise InputError(f"--small-options {options!r}: expected a JSON object, as '{{\"num_classes\": 2}}'")
    from dual_skd.networks.build import build_network  # only here: it brings timm and MONAI

    torch.manual_seed(seed)
    return build_network(name, **({"num_classes": 2} | options))


def _json(text: str, argument: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{argument} {text!r}: not valid JSON ({error.msg} at character {error.pos})") from error
