# SPDX-License-Identifier: Apache-2.0
"""Where things lie: the bundle with its configs, and the model of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dual_skd.data.demo import of_demo
from dual_skd.errors import InputError, did_you_mean
from dual_skd.options.typed import configs_typed, words_of_monai
from dual_skd.utils.files import expanded, read_json, sha256_of

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]


def own_bundle() -> Path:
    """The bundle whose code this is: the folder that the package lies in, else what was installed with the package."""
    return PACKAGE.parent if _is_bundle(PACKAGE.parent) else PACKAGE / "bundle"


def bundle_root() -> str:
    """The bundle of the config that runs; else the one at hand, and at last :func:`own_bundle`.

    Of an installed package the one at hand is on the module path, the current folder, or ``bundle`` in it.
    """
    here = Path.cwd()
    places = [*_running(), PACKAGE.parent, *map(Path, sys.path), here, here / "bundle"]
    return str(next(filter(_is_bundle, places), own_bundle()))


def _running() -> list[Path]:
    """The bundles whose configs are being run: of the workflows that this call is part of, and of the command line.

    A config can't tell where it lies. MONAI's workflow can, which evaluates it, and so does ``--config_file``.
    """
    configs = []
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        workflow = getattr(frame.f_locals.get("self"), "__dict__", {})
        if "config_root_path" in workflow:
            configs.append(Path(workflow["config_root_path"]))
    configs += [Path(file).parent for file in configs_typed(words_of_monai())]
    return [folder.absolute().parent for folder in configs]


def _is_bundle(place: Path) -> bool:
    """Whether a folder is a bundle of this package: other MONAI bundles have a train.json too."""
    config = place / "configs" / "train.json"
    return config.is_file() and b"dual_skd" in config.read_bytes()


def model_file(path: str | Path) -> Path:
    """The file that a path of a model stands for: itself, or of a folder its ``model.pt`` or ``models/model.pt``."""
    path = expanded(path)
    if path.is_dir():
        return next((p for p in (path / "model.pt", path / "models" / "model.pt") if p.is_file()), path / "model.pt")
    return path


def find_model(
    output_dir: str | Path,
    root: str | Path | None = None,
    images: str | Path | None = None,
    *,
    begun: bool = False,
) -> str:
    """Path of the model to use: of a run's ``output_dir`` if it has one, else of the bundle's own ``models`` folder.

    A mistyped ``output_dir`` must not pass for a finished run: the log names the bundle's own model where it is used,
    and the demo's model, which comes with the bundle, answers for the demo's images only.

    Args:
        output_dir: of the run.
        root: the bundle's folder; None looks in ``output_dir`` alone.
        images: what the model is asked about: "demo", a path, or None where that isn't known.
        begun: of a run without a model, take the path that it will have.

    Raises:
        InputError: there is no such model, or ``output_dir`` is that of a run without a model.
    """
    output_dir = Path(output_dir)
    own = output_dir / "models" / "model.pt"
    if own.is_file() or (begun and (output_dir / "run.json").is_file()):
        return str(own)
    if (output_dir / "datalist.json").is_file():
        raise InputError(
            f"{output_dir} is the folder of a run, but {own} isn't there: it hasn't kept a model yet, or the file was "
            "removed; give the same training command again to go on."
        )
    near = did_you_mean(output_dir.name, _runs_beside(output_dir))
    wanted = f"give the folder of a finished run as output_dir{near}, or train one (dual-skd train DATA -o OUT)"
    shipped = None if root is None else Path(root) / "models" / "model.pt"
    if shipped is None or shipped == own or not shipped.is_file():
        raise InputError(f"No model in {own}: {wanted}.")
    if images is not None:
        refuse_demo_model(shipped, [images], f"No model in {own}: {wanted}")
    logger.warning(
        "No model in %s: the bundle's own is used, %s%s; for one of your own give the folder of its run as output_dir.",
        own,
        shipped,
        f" ({about})" if (about := read_json(shipped.with_suffix(".json")).get("description")) else "",
    )
    return str(shipped)


def require_run(output_dir: str | Path) -> None:
    """Raises an ``InputError`` for a folder that isn't there, or that no training has written into."""
    folder = expanded(output_dir)
    near = did_you_mean(folder.name, _runs_beside(folder))
    remedy = f"give the folder of a training run{near}, as `dual-skd train DATA -o OUT` makes one"
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; {remedy}.")
    if not any((folder / name).exists() for name in ("run.json", "datalist.json", "models")):
        raise InputError(f"No training has written into the folder {folder}; {remedy}.")


def refuse_demo_model(model: str | Path, images: Iterable[Any], remedy: str) -> None:
    """Refuses to ask the demo's model, as it comes with the bundle, about other images than the demo's.

    Args:
        model: the file; it is the demo's if ``model.json`` beside it says so and has its SHA-256.
        images: paths, "demo", or arrays, which are never the demo's.
        remedy: what to do, the beginning of the message.

    Raises:
        InputError: it is the demo's, and one of the images isn't.
    """
    others = [image for image in images if not (isinstance(image, str | Path) and of_demo(image))]
    record = read_json(Path(model).with_suffix(".json"))
    if not others or "demo_test" not in record or record.get("sha256") != sha256_of(model):
        return
    shown = others[0] if isinstance(others[0], str | Path) else "an array"
    raise InputError(
        f"{remedy}. The model that comes with the bundle, {model}, isn't asked about {shown}: it was "
        f"{record['description']}. To see what it says all the same: dual-skd predict FILE --model demo."
    )


def _runs_beside(output_dir: Path) -> list[str]:
    parent = output_dir.absolute().parent
    return [path.parent.name for path in parent.glob("*/models")] if parent.is_dir() else []
