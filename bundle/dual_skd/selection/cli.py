# SPDX-License-Identifier: Apache-2.0
"""``dual-skd select``: large weights in, small weights and a table per tensor out.

dual-skd select --large vit_small.safetensors --small vit_tiny.pth --out tiny.safetensors --report tiny.csv
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import InputError
from ..weight_files import ENDINGS, load_state_file
from ..wording import as_word, closing
from .axes import FAMILIES
from .plan import plan_selection
from .rules import ELEMENT_RULES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``select``."""
    parser.add_argument("--large", required=True, metavar="FILE", help="weights of the large network")
    parser.add_argument(
        "--small",
        required=True,
        metavar="FILE|NAME",
        help="weights file of the small network's shapes, or a network name",
    )
    parser.add_argument("--small-options", default="{}", metavar="JSON", help="options of the named small network")
    parser.add_argument("--out", required=True, metavar="FILE", help="small weights, .safetensors or .pt")
    parser.add_argument("--report", metavar="CSV", help="table with one row per tensor")
    parser.add_argument("--elements", default="uniform", help=" | ".join(ELEMENT_RULES))
    parser.add_argument("--layers", default="first", help='first | last | even | JSON, as "[0, 2, 5]"')
    parser.add_argument("--mode", default="structured", help="structured | reference (the published index rule)")
    parser.add_argument("--heads", default="whole", help="whole | blend")
    parser.add_argument("--family", help=f"{' | '.join(FAMILIES)} | generic; default: recognised")
    parser.add_argument("--large-heads", type=int, metavar="N", help="attention heads, if not 64 channels each")
    parser.add_argument(
        "--small-heads", type=int, metavar="N", help="attention heads, if not as wide as the large ones"
    )
    for which in ("large", "small"):
        parser.add_argument(
            f"--{which}-grid", type=int, nargs="+", metavar="N", help="tokens per axis, if not square or cubic"
        )
    parser.add_argument("--rescale", action="store_true", help="multiply by large / small input width")
    parser.add_argument("--seed", type=int, default=0, help="seed of elements=random and of what isn't selected")
    parser.add_argument(
        "--selected-only", action="store_true", help="write the selected tensors only, not the small network's others"
    )


def main(args: argparse.Namespace) -> int:
    """Runs the selection and returns the exit status."""
    out = Path(args.out)
    if out.suffix not in ENDINGS:
        raise InputError(f"{out}: expected a file ending in {', '.join(ENDINGS)}")
    large = load_state_file(args.large)
    small = _small_network(args.small, _json(args.small_options, "--small-options"), args.seed)
    layers = _json(args.layers, "--layers") if args.layers[:1] in "[{" else args.layers
    plan = plan_selection(
        large,
        small,
        elements=args.elements,
        layers=layers,
        seed=args.seed,
        mode=args.mode,
        heads=args.heads,
        family=args.family,
        rescale=args.rescale,
        large_heads=args.large_heads,
        small_heads=args.small_heads,
        large_grid=args.large_grid,
        small_grid=args.small_grid,
    )
    selected = plan.apply()
    rest = {} if args.selected_only else dict(small.state_dict() if isinstance(small, nn.Module) else small)
    write_weights(out, rest | selected)
    if args.report:
        plan.write_report(args.report)
    rows = [*plan.summary(), ("table", Path(args.report) if args.report else "")]
    sys.stdout.write(closing(f"Selected: {out}", rows, _next_command(args)) + "\n")
    return 0


def _next_command(args: argparse.Namespace) -> str:
    """The training that starts with these weights; a network known by its weights alone can't be trained by name."""
    if Path(args.small).suffix in ENDINGS:
        return ""
    words = ["dual-skd", "train", "DATA", "--pretrained", as_word(args.out)]
    options = json.loads(args.small_options)
    for name in ("spatial_dims", "image_size"):  # options of the training itself
        words += [f"--{name}", str(options.pop(name))] if name in options else []
    own = {name: value for name, value in options.items() if name not in ("num_classes", "in_channels")}  # of the data
    for role in ("large", "small"):  # of equal networks all weights are selected
        words += [f"--{role}", args.small, *([f"--{role}_options", json.dumps(own)] if own else [])]
    return shlex.join(words)


def write_weights(path: str | Path, state: dict[str, Tensor]) -> None:
    """Writes a state dict as .safetensors or, by the suffix, with torch.save."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().clone().contiguous() for name, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


def _small_network(name: str, options: Any, seed: int) -> nn.Module | dict[str, Tensor]:
    if Path(name).suffix in ENDINGS:
        return load_state_file(name)
    if not isinstance(options, dict):
        raise InputError(f"--small-options {options!r}: expected a JSON object, as '{{\"num_classes\": 2}}'")
    from ..networks import build_network  # only here: it brings timm and MONAI

    torch.manual_seed(seed)
    return build_network(name, **({"num_classes": 2} | options))


def _json(text: str, argument: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{argument} {text!r}: not valid JSON ({error.msg} at character {error.pos})") from error
