# SPDX-License-Identifier: Apache-2.0
"""The networks of a plan filled so that both must compute the same, in float64 on the CPU.

The large one has random values where the plan copies from and zeros elsewhere; the small one takes its values from
there, as the plan says.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from dual_skd.errors import SelectionError
from dual_skd.selection.builder import CLASSIFIER
from dual_skd.selection.copies import copy_with, without_memory
from dual_skd.selection.images import likely_inputs, tensors_in
from dual_skd.selection.naming import Naming
from dual_skd.selection.padding import padding_invariant
from dual_skd.selection.parts import Part, piece_of
from dual_skd.selection.view import View

Pick = Callable[[Part, Tensor], Tensor]
Seen = Callable[[str, list[Tensor]], None]
PADDINGS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
STATISTICS = ("running_mean", "running_var")


class Embedding:
    """Copies of both networks that take random values together.

    Args:
        parts: the plan's parts.
        pick: takes a part's entries from a tensor shaped like its source, before any adaptation.
        large: view of the large network, with its module.
        small: the same of the small one.
        naming: of the large network's tensors that the plan stacks.

    Attributes:
        large, small: the networks.
        paths: module of the small network -> its counterpart in the large one.
        selected: parts that are copied.
        inflated: whether a network of volumes takes its weights from one of images.
    """

    def __init__(self, parts: Sequence[Part], pick: Pick, large: View, small: View, naming: Naming) -> None:
        self.selected = [part for part in parts if not part.reason]
        self._left = [part for part in parts if part.reason]
        self._pick, self._naming = pick, naming
        self.small = _double_copy(small, None)
        self.large = _double_copy(large, self.small)
        self._inputs = [(1, *shape) for shape in likely_inputs(self.small, small.image_size)]
        self.paths = _counterparts(self.selected, self.small)
        heads = _layers(part.name for part in parts if part.reason == CLASSIFIER)
        there = {self.counterpart(head) for head in heads}
        if not there.issubset(path for path, _ in self.large.named_modules()):  # of another library
            there = _layers(large.classifier)
        self._heads = {self.small: heads, self.large: there}
        self._learned = {name for name, _ in self.large.named_parameters()}
        self._learned |= {name for name in large.shapes if name.endswith(STATISTICS)}
        self.inflated = _image_rank(large) < _image_rank(small)
        self._give_form(large, small)
        self._large_state, self._small_state = _state(self.large), _state(self.small)

    def fill(self, generator: torch.Generator, gain: float) -> None:
        """Draws new values; those of weights have a standard deviation of ``gain`` over the root of their fan-in."""
        state, small = self._large_state, self._small_state
        sources = {part.source for part in self.selected}
        for name in self._learned & state.keys():
            if name in sources:
                state[name].fill_(name.endswith("running_var"))
            elif state[name].dim():
                _leave_out(name, state[name])
        for part in self.selected:
            if part.source and self._learned.issuperset(self._naming.pieces(part.source)):
                target = self._naming.values(state)[part.source]
                places = self._pick(part, torch.arange(target.numel()).reshape(target.shape))
                drawn = _draw(part.source, places.shape, generator, gain)
                if target.is_complex():
                    drawn = torch.complex(drawn, _draw(part.source, places.shape, generator, gain))
                target.view(-1)[places.flatten()] = drawn.flatten()
                self._naming.spread(part.source, target, state)
        for part in self._left:
            if small[part.name].is_floating_point() and small[part.name].dim():  # a lone number has no channels
                _leave_out(part.name, small[part.name])
        for part in self.selected:
            value = self._taken(part, small[part.name])
            if value.shape == small[part.name].shape:
                small[part.name].copy_(value)

    def image(self, shape: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random input of the large and of the small network, whose ``shape`` it has."""
        image = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
        if not self.inflated:
            return image, image
        plane = image[:, :1, ..., 0]
        kernel = next(value for value in self.large.parameters() if value.dim() == plane.dim())
        return plane.expand(-1, kernel.shape[1], *plane.shape[2:]), plane.unsqueeze(-1).expand(shape)

    def run(self, network: nn.Module, image: Tensor, seen: Seen | None = None) -> list[Tensor]:
        """The features of one network: what enters its classifier, or its output where no classifier is known.

        Args:
            network: ``large`` or ``small``.
            image: its input.
            seen: gets the path and the output of each module, in the order of computation.

        Returns:
            Features, empty where the large network has no such classifier. Of a volume that is constant along its depth
            they are one slice.
        """
        heads = self._heads[network]
        found: dict[str, Tensor] = {}
        is_volume = self.inflated and network is self.small

        def flat(output: Any) -> list[Tensor]:
            return [value[..., 0] if is_volume and value.dim() == 5 else value for value in tensors_in(output)]

        def entering(path: str, module: nn.Module, inputs: Any, named: Any) -> None:
            found.setdefault(path, next(tensors_in([inputs, named])))

        def leaving(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
            if seen is not None:
                with mode.paused():
                    seen(path, flat(output))

        hooks = []
        for path, module in network.named_modules():
            if path in heads:
                hooks.append(module.register_forward_pre_hook(partial(entering, path), with_kwargs=True))
            elif seen:
                hooks.append(module.register_forward_hook(partial(leaving, path)))
        try:
            with (
                torch.compiler.set_stance("force_eager"),
                without_memory(network),
                padding_invariant(flat_depth=self.inflated) as mode,
            ):
                output = network(image)
        finally:
            for hook in hooks:
                hook.remove()
        return flat(list(found.values()) if heads else output)

    def counterpart(self, path: str) -> str:
        """The module of the large network that a module of the small one corresponds to."""
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            if found := self.paths.get(".".join(parts[:end])):
                return ".".join([found, *parts[end:]])
        return ".".join(filter(None, [self.paths.get(""), path]))

    @contextmanager
    def spoilt(self, name: str) -> Iterator[None]:
        """Shifts the input channels of one tensor of the small network by one."""
        tensor = self._small_state[name]
        kept = tensor.clone()
        tensor.copy_(kept.roll(1, 1))
        try:
            yield
        finally:
            tensor.copy_(kept)

    def spoilable(self) -> list[str]:
        """Names of the small network's copied tensors that have input channels."""
        learned = [part.name for part in self.selected if part.source in self._learned]
        return [name for name in learned if self._small_state[name].dim() > 1 and self._small_state[name].shape[1] > 1]

    def shape_of(self, image: Tensor | None) -> tuple[int, ...]:
        """Shape of an input that the small network computes.

        Raises:
            SelectionError: it doesn't compute ``image``, or none of those that are tried.
        """
        reason = ""
        for shape in self._inputs if image is None else [tuple(image.shape)]:
            try:
                self.run(self.small, torch.zeros(shape, dtype=torch.float64))
            except Exception as error:  # whatever a foreign network raises on an image that it isn't made for
                reason = reason or first_line(error)
            else:
                return tuple(shape)
        tried = "no image that was tried" if image is None else f"no input of shape {tuple(image.shape)}"
        raise SelectionError(f"the small network computes {tried} ({reason}); give an example: plan.check(image)")

    def _give_form(self, large: View, small: View) -> None:
        """Gives the large network the small one's image size, kernels, input channels and numbers such as scales."""
        here, there = dict(self.small.named_modules()), dict(self.large.named_modules())
        _resize_images(self.large, self.small)
        state, wanted = _state(self.large), _state(self.small)
        for part in self.selected:
            if part.source not in self._learned or self.inflated:
                continue
            form = _form(part, state[part.source].shape, wanted[part.name].shape)
            if form != state[part.source].shape:
                owner, leaf = part.source.rpartition(".")[::2]
                there[owner]._parameters[leaf] = nn.Parameter(torch.zeros(form, dtype=torch.float64), False)
                names = ("stride", "kernel_size", "padding", "in_channels")
                _copy_settings(here[part.name.rpartition(".")[0]], there[owner], names)
        for path, module in here.items():  # padding that a network computes from the image's size
            other = self.counterpart(path)
            kinds = [isinstance(each, PADDINGS) for each in (module, there.get(other))]
            if any(kinds) and all(isinstance(each, (*PADDINGS, nn.Identity)) for each in (module, there.get(other))):
                self.large.set_submodule(other, module)
        for path, other in self.paths.items():
            if other in there and type(here[path]) is type(there[other]):
                numbers = [name for name, value in vars(here[path]).items() if isinstance(value, float)]
                _copy_settings(here[path], there[other], numbers)

    def _taken(self, part: Part, like: Tensor) -> Tensor:
        """What the small network gets of a part; without the adaptations that :meth:`_give_form` made needless."""
        if part.neutral is not None or part.source is None:
            return torch.full_like(like, part.neutral or 0.0)
        value = piece_of(part, self._pick(part, self._naming.values(self._large_state)[part.source]))
        if part.steps and value.shape != like.shape:
            if value.dim() == like.dim() == 3 and not self.inflated:  # leading tokens
                value = nn.functional.pad(value, (0, 0, like.shape[1] - value.shape[1], 0))
            else:
                for _, step in part.steps:
                    value = step(value)
        if part.add_first:
            value = value + self._pick(part, self._large_state[part.add_first][:, :1])
        return value.reshape(like.shape) if value.numel() == like.numel() else value


def _double_copy(view: View, like: nn.Module | None) -> nn.Module:
    """A copy of a view's module in float64 on the CPU, in evaluation; parameters are zeros.

    Buffers on the meta device come from the view's values, those that no file holds from ``like`` or are made again.
    """
    own = nn.Module() if view.module is None else view.module
    network = copy_with(own, _in_double)
    lost = False
    others = dict(like.named_buffers()) if like is not None else {}
    for name, buffer in own.named_buffers():
        if buffer.is_meta:
            value = view.state.get(name, others.get(name))
            if value is None or value.is_meta or value.shape != buffer.shape:
                lost = True
            else:
                network.get_buffer(name).copy_(value)
    if lost:
        for module in network.modules():
            if callable(make := getattr(module, "init_non_persistent_buffers", None)):  # timm's
                make()
    network = network.double()  # compiled modules are copied as they are
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    return network


def _in_double(value: Tensor) -> Tensor:
    value = torch.zeros_like(value, device="cpu") if value.is_meta else value.cpu()
    kind = torch.complex128 if value.is_complex() else torch.float64 if value.is_floating_point() else value.dtype
    return value.to(kind, copy=True)


def _resize_images(large: nn.Module, small: nn.Module) -> None:
    """Gives a network of timm the image size and the windows of another one."""
    size = getattr(getattr(small, "patch_embed", None), "img_size", None)
    resize = getattr(large, "set_input_size", None)
    if size is None or not callable(resize) or size == getattr(getattr(large, "patch_embed", None), "img_size", None):
        return
    options = {"img_size": size}
    stages: Any = getattr(small, "layers", None)
    if "window_size" in signature(resize).parameters and stages is not None:
        options["window_size"] = [stage.blocks[0].window_size for stage in stages]
    with warnings.catch_warnings():  # of the resampling of values that nobody reads
        warnings.simplefilter("ignore")
        resize(**options)


def _counterparts(parts: Iterable[Part], small: nn.Module) -> dict[str, str]:
    """Module of the small network -> of the large one, by the tensors that they exchange.

    Modules around them correspond as far as their names end alike.
    """
    paths: dict[str, str] = {}
    for part in parts:
        if part.source is None:
            continue
        if part.source.endswith(f".{part.name}"):
            paths.setdefault("", part.source.removesuffix(f".{part.name}"))  # the network inside a wrapper
        here, there = part.name.split(".")[:-1], part.source.split(".")[:-1]
        while here and there:
            paths.setdefault(".".join(here), ".".join(there))
            here, there = here[:-1], there[:-1]
    known = {path for path, _ in small.named_modules()}
    return {path: other for path, other in paths.items() if path in known}


def _layers(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names} - {""}


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.state_dict(keep_vars=True).items()}


def _draw(name: str, shape: Sequence[int], generator: torch.Generator, gain: float) -> Tensor:
    """Values such as a trained network's."""
    if name.endswith("running_mean") or "bias" in name.rpartition(".")[2]:
        return 0.2 * torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    if len(shape) < 2:
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64) + 0.5
    spread = gain / math.sqrt(max(1, math.prod(shape[1:])))
    return spread * torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def _leave_out(name: str, tensor: Tensor) -> None:
    """A layer or norm that isn't selected gives zeros; the scale of a residual stream changes nothing."""
    tensor.fill_(float(tensor.dim() == 1 and not name.endswith(("weight", "bias", "running_mean"))))


def _form(part: Part, old: Sequence[int], new: Sequence[int]) -> torch.Size:
    """The large tensor's sizes on the axes, the small one's elsewhere; leading tokens stay."""
    if not part.steps or len(old) != len(new) or (len(old) == 3 and 0 < old[1] - new[1] < 8):
        return torch.Size(old)
    dims = [*part.dims, *[None] * (len(new) - len(part.dims))]
    return torch.Size(own if dim else other for dim, own, other in zip(dims, old, new, strict=True))


def _copy_settings(source: nn.Module, target: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        if name in vars(source) and name in vars(target):
            setattr(target, name, getattr(source, name))


def _image_rank(view: View) -> int:
    return max((len(shape) for shape in view.shapes.values()), default=0)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
