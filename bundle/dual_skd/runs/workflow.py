# SPDX-License-Identifier: Apache-2.0
"""The bundle's configs as MONAI runs them, with options from presets, files and keywords."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dual_skd.errors import InputError, did_you_mean, plain_input_errors
from dual_skd.options import Evaluation, Options, Training, read, removed
from dual_skd.options.derived import FORMER
from dual_skd.options.kinds import is_text, literal
from dual_skd.options.known_configs import KNOWN, fingerprint
from dual_skd.options.typed import top_entry
from dual_skd.runs.lock import released_afterwards
from dual_skd.runs.places import own_bundle
from dual_skd.utils.log import silenced

logger = logging.getLogger(__name__)

NOT_PRESETS = ("train.json", "evaluate.json", "inference.json", "metadata.json")
ADDED_ENTRIES = ("finalize",)  # of the configs, that a preset may add


class Gathered(NamedTuple):
    """The configs of a run, and its options.

    Attributes:
        files: the config, and the presets laid over it.
        values: the options that were given beside them, by name.
        options: those, what the presets say, and the defaults.
    """

    files: list[Path]
    values: dict[str, Any]
    options: Any


@dataclass(frozen=True)
class Workflow:
    """One of the bundle's configs.

    Args:
        config: its file in ``configs``.
        kind: its options.
        monai: what MONAI calls it.
    """

    config: str
    kind: type[Options]
    monai: str

    def presets(self) -> dict[str, Path]:
        """The files that may be laid over the config, by name: those of its entries alone."""
        known = {*self._content(self.file), *ADDED_ENTRIES}
        files = [path for path in sorted(self.file.parent.glob("*.json")) if path.name not in NOT_PRESETS]
        return {path.stem: path for path in files if {top_entry(key) for key in self._content(path)} <= known}

    @property
    def file(self) -> Path:
        """The config.

        Raises:
            InputError: the package lies somewhere without its configs.
        """
        path = own_bundle() / "configs" / self.config
        if not path.is_file():
            raise InputError(f"The bundle's config {path} isn't there; install the package again.")
        return path

    def gather(
        self, values: Mapping[str, Any], preset: str | Sequence[str] | None, config: str | Path | Sequence[Any] | None
    ) -> Gathered:
        """The configs to run, and the options beside them, all looked at before any data.

        Args:
            values: options by name; they win over ``config``, and those over ``preset``.
            preset: names of :meth:`presets`.
            config: files of options.

        Raises:
            InputError: there is no such preset or file, or an option is unknown or isn't what it takes.
        """
        found, files = self.presets(), [self.file]
        from_presets: dict[str, Any] = {}
        for name in _several(preset):
            if name not in found:
                raise InputError(f"Unknown preset {name!r}{did_you_mean(str(name), found)}; valid: {', '.join(found)}.")
            files.append(found[name])
            from_presets |= self._content(found[name])
        chosen: dict[str, Any] = {}
        for path in _several(config):
            chosen |= self._options_in(Path(path).expanduser())
        chosen |= values
        plain = {name: one for name, one in from_presets.items() if name in self.kind.model_fields and not _refers(one)}
        options: Any = read(self.kind, plain | chosen)
        if (folder := Path(options.output_dir).expanduser()).is_file():
            raise InputError(f"output_dir {folder} is a file; give the name of a folder.")
        if self.kind is Training and "dataset_dir" not in {*from_presets, *chosen}:
            raise InputError("Expected the data to train on: dual-skd train DATA; `demo` stands for generated images.")
        return Gathered(files, {name: getattr(options, name) for name in chosen}, options)

    def run(self, files: Sequence[Path], values: Mapping[str, Any]) -> Any:
        """Runs the configs and returns MONAI's parser, which knows what they became.

        Raises:
            InputError: as whatever in the configs raised it, without MONAI's layers around.
        """
        with self.prepared(files, values) as workflow:
            workflow.run()
            workflow.finalize()
        return workflow.parser

    @contextmanager
    def prepared(self, files: Sequence[Path], values: Mapping[str, Any]) -> Iterator[Any]:
        """MONAI's workflow of the configs, initialised, of which nothing has run; the process is as before afterwards.

        Raises:
            InputError: see :meth:`run`; also of what is done with the workflow.
        """
        warn_of_strangers(files)
        from monai.bundle import ConfigWorkflow

        with _undisturbed(), plain_input_errors(), released_afterwards():
            with silenced("monai.bundle.workflows"):
                workflow = ConfigWorkflow(list(map(str, files)), logging_file=False, workflow_type=self.monai)
            # an expression per option: MONAI would take a text with $, @ or % in front for its own language
            workflow.parser.globals["chosen"] = dict(values)
            given = [name for name in values if (name, values[name]) != ("device", "auto")]  # that is the config's own
            workflow.parser.update({name: f"$chosen[{name!r}]" for name in given})
            workflow.initialize()
            yield workflow

    def _options_in(self, path: Path) -> dict[str, Any]:
        """The options of a user's file, which hold nothing but plain values."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # not there, or not UTF-8, or no path at all
            reason = getattr(error, "strerror", None) or f"expected UTF-8 text, {error}"
            raise InputError(f"The file of options {path} can't be read ({reason}).") from error
        try:
            content = json.loads(text) if path.suffix.lower() == ".json" else _yaml(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} isn't JSON or YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(content, dict):
            raise InputError(f"{path} holds no options by name; expected lines such as `epochs: 24`.")
        options = {str(name).replace("-", "_"): value for name, value in content.items()}
        if lost := removed(options):
            raise InputError(f"{path} has {lost}, which this version no longer has; leave it out.")
        options = {name: value for name, value in options.items() if name not in FORMER}
        for name in options:
            if name not in self.kind.model_fields:
                near = did_you_mean(name, self.kind.model_fields)
                raise InputError(f"{path}: unknown option {name}{near}; such a file holds options alone.")
        fields = self.kind.model_fields
        return {  # YAML takes 1e-3 for a text
            name: literal(one) if isinstance(one, str) and not is_text(fields[name]) else one
            for name, one in options.items()
        }

    @staticmethod
    def _content(path: Path) -> dict[str, Any]:
        return json.loads(path.read_text(encoding="utf-8"))


TRAIN = Workflow("train.json", Training, "train")
EVALUATE = Workflow("evaluate.json", Evaluation, "eval")


def warn_of_strangers(files: Sequence[Path]) -> None:
    """Warns of configs that aren't as they came with the package, as MONAI warns of all."""
    strange = [str(path) for path in files if KNOWN.get(path.name) != fingerprint(path)]
    if strange:
        logger.warning(
            "Not as %s came with dual_skd, and a config runs whatever code it names: go on only if you trust where "
            "this is from. `dual-skd audit %s` shows what it would run.",
            ", ".join(strange),
            files[0].parent.parent,
        )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leaves the process as it was: random numbers, settings for exactness, module path, hook of errors."""
    import torch
    from monai.utils import set_determinism
    from monai.utils.misc import get_seed

    from dual_skd.runs.random_state import random_state, set_random_state

    cudnn = torch.backends.cudnn
    before = get_seed(), cudnn.deterministic, cudnn.benchmark, random_state(), list(sys.path), sys.excepthook
    try:
        yield
    finally:
        seed, deterministic, benchmark, state, sys.path[:], sys.excepthook = before
        set_determinism(seed)
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
        set_random_state(state)


def _refers(value: Any) -> bool:
    """Whether a value of a config is an expression or a reference."""
    return isinstance(value, str) and value[:1] in ("$", "@", "%")


def _several(value: Any) -> list[Any]:
    several = [] if value is None else [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(several, list | tuple) or not all(isinstance(one, str | os.PathLike) for one in several):
        raise InputError(f"Presets and configs are names or paths, or a list of them; found {value!r}.")
    return list(several)


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
