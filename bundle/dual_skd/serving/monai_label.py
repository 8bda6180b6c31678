# SPDX-License-Identifier: Apache-2.0
"""Places of the model, and labels, where MONAI Label's server runs the bundle.

MONAI Label 0.8.5 serves ``models/model.pt`` of the bundle's folder, loads it again when it has changed, and expects
training to change it. For training it puts ``{"image": path, "label": path}`` in place of ``train#dataset#data`` and
``validate#dataset#data``. For classification it has no form of label of its own: it keeps whatever file a client gives,
and so the forms of :func:`class_in` are those that its clients and its own answers suggest.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dual_skd.data.records.data_source import DataSource
from dual_skd.data.records.datalist import DataList, Items
from dual_skd.errors import InputError
from dual_skd.options import Training
from dual_skd.utils.files import replace_file, write_json
from dual_skd.utils.spelling import key_of

logger = logging.getLogger(__name__)

DEFAULT_OUTPUT_DIR = Training.model_fields["output_dir"].default
MAX_LABEL_BYTES = 2**20  # a larger label file is an image or a mask


def served() -> bool:
    """Whether this is MONAI Label's server, or training that it has started: both have its environment variables."""
    return bool(os.environ.get("MONAI_LABEL_APP_DIR"))


def model_home(output_dir: str, bundle_root: str | Path) -> str:
    """The folder whose ``models`` inference uses first: ``output_dir``, or the bundle's where it is served."""
    return str(bundle_root) if served() and output_dir == DEFAULT_OUTPUT_DIR else os.path.expanduser(output_dir)


def run_home(output_dir: str, bundle_root: str | Path) -> str:
    """The folder of a run: ``output_dir``, or a new one in the bundle where MONAI Label has started it."""
    if served() and output_dir == DEFAULT_OUTPUT_DIR:
        return str(Path(bundle_root) / "runs" / time.strftime("%Y%m%d-%H%M%S"))
    return os.path.expanduser(output_dir)


def publish(output_dir: str | Path, bundle_root: str | Path) -> None:
    """Puts the model of a finished run in place of the bundle's, if MONAI Label has started the run.

    Each file is replaced in one step, ``model.pt`` last, since the server looks at its time.
    """
    if not served():
        return
    made, target = Path(output_dir) / "models", Path(bundle_root) / "models"
    (target / "model.json").unlink(missing_ok=True)  # describes the weights that came with the bundle
    for path in sorted(made.iterdir(), key=lambda path: path.name == "model.pt"):
        replace_file(target / path.name, partial(shutil.copyfile, path))
    logger.info("%s is now what MONAI Label serves: %s.", made / "model.pt", target)


def labelled_data(
    datalist: DataSource,
    train: Sequence[Mapping[str, Any]] | None,
    validation: Sequence[Mapping[str, Any]] | None,
    *,
    output_dir: str | Path,
    bundle_root: str | Path,
) -> DataSource | DataList:
    """Returns the data to train on: those of the options, or the images that MONAI Label gives in their place.

    The list, ``monai_label.json`` in ``output_dir``, holds both of MONAI Label's parts in one: it cuts them from the
    images in the order of their names, which may leave a class or half a patient on one side. The bundle divides them
    again, by class and patient. The classes are those of the bundle's metadata, as in MONAI Label's answers.

    Args:
        datalist: the data of the options.
        train: its own training records; or, from MONAI Label, "image" (a path) and "label" (a class name, its number,
            or the path of a file that holds one) per image.
        validation: the same.
        output_dir: where the list is written.
        bundle_root: of the metadata.

    Raises:
        InputError: a label is none of the classes, or its file can't be understood.
    """
    if not train or isinstance(train, Items):
        return datalist
    path = Path(bundle_root) / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    names = [channels[place] for place in sorted(channels, key=int)]
    given = [*train, *(validation or [])]
    records = [{"image": str(record["image"]), "label": _name(record["label"], names, path)} for record in given]
    target = Path(output_dir) / "monai_label.json"
    write_json(target, {"labels": names, "training": records}, private=True)
    logger.info("MONAI Label gives %d labelled images; val_fraction divides them, not its val_split.", len(records))
    return datalist.elsewhere(target, test_fraction=0.0)


def class_in(label: Any) -> str:
    """The class that a label of MONAI Label's store names.

    Args:
        label: a class name or number, or the path of a file with one: plain text, or JSON that is a name, a number, an
            object with "label", or an answer of MONAI Label with "prediction", of which the highest score counts.

    Raises:
        InputError: the file holds none of these.
    """
    path = Path(str(label))
    if not path.is_file():
        return str(label).strip()
    expected = 'a class name, {"label": "name"}, or an answer of MONAI Label with "prediction"'
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise ValueError("it is too large")
        text = path.read_text(encoding="utf-8-sig").strip()
        content = json.loads(text) if path.suffix.lower() == ".json" else text
        if isinstance(content, dict) and "prediction" in content:
            content = max(content["prediction"], key=lambda entry: entry["score"])
        if isinstance(content, dict):
            content = content["label"]
        if isinstance(content, bool) or not isinstance(content, str | int) or content == "":
            raise ValueError(f"it holds {content!r}")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"Expected {expected} in the label {path}, which can't be read so: {error}.") from error
    return str(content).strip()


def _name(label: Any, names: Sequence[str], metadata: Path) -> str:
    """The class as the bundle spells it: MONAI Label writes all names in small letters, and takes numbers too."""
    found = class_in(label)
    spelled = {key_of(name): name for name in names}
    if found.isdecimal() and found not in names and int(found) < len(names):
        return names[int(found)]
    if key_of(found) not in spelled:
        raise InputError(
            f"The label {found!r} ({label}) is none of the classes of this bundle, {', '.join(names)}; correct it, or "
            f"pack the bundle with a model of your classes, or write them into channel_def of {metadata}."
        )
    return found if found in names else spelled[key_of(found)]
