# SPDX-License-Identifier: Apache-2.0
"""The images that a trained model is asked about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dual_skd.data.demo import DEMO_NAMES, of_demo, write_demo
from dual_skd.data.records.frames import frames_of
from dual_skd.data.records.images_in import images_in
from dual_skd.data.records.sources import read_source
from dual_skd.errors import InputError
from dual_skd.utils.files import read_json
from dual_skd.utils.wording import quoted

if TYPE_CHECKING:
    from dual_skd.data.records.datalist import DataList


def find_images(
    dataset_dir: str | Path,
    spatial_dims: int = 2,
    demo_dir: str | Path = "demo",
    frame: int | str | None = None,
    *,
    trained_on: str | Path | None = None,
    image_column: str | None = None,
    allow_outside: bool = False,
) -> list[str]:
    """Returns the locators of all images to predict. Labels are not used.

    Args:
        dataset_dir: an image (or one series or frame: see :mod:`dual_skd.data.reading.locators`), a folder with images
            at any depth, a table of images, an .npz file in MedMNIST's layout, or "demo" for the demo's test images.
        spatial_dims: 2 for images, 3 for volumes (the slices of a DICOM series in one folder are one).
        demo_dir: where "demo" data are written.
        frame: which frames of files with several a 2D task takes, see :func:`dual_skd.data.load_records`.
        trained_on: ``datalist.json`` of the model's run, if there is one. A model of the demo's images is asked about
            no others, and a model of others not about the demo's.
        image_column, allow_outside: see :func:`dual_skd.data.load_records`.

    Raises:
        InputError: there is no such path, or no image in it.
    """
    if trained_on is not None and Path(trained_on).is_file():
        if str(dataset_dir) in DEMO_NAMES:
            from dual_skd.data.records.split_file import load_split  # brings PyTorch, without which the others do

            refuse_demo(load_split(trained_on), trained_on)
        elif not of_demo(dataset_dir):
            _refuse_patients(Path(trained_on), Path(demo_dir), dataset_dir)
    found = _find_images(dataset_dir, spatial_dims, demo_dir, image_column, allow_outside)
    return [image for images in frames_of(found, frame if spatial_dims == 2 else None) for image in images]


def _find_images(
    dataset_dir: str | Path, spatial_dims: int, demo_dir: str | Path, image_column: str | None, allow_outside: bool
) -> list[str]:
    if str(dataset_dir) in DEMO_NAMES:
        table = write_demo(Path(demo_dir), spatial_dims=DEMO_NAMES[str(dataset_dir)])
        return [row.image for row in read_source(table).rows if row.split == "test"]
    return images_in(dataset_dir, spatial_dims, image_column=image_column, allow_outside=allow_outside)


def _refuse_patients(trained_on: Path, demo_dir: Path, dataset_dir: str | Path) -> None:
    """Raises :class:`InputError` for a model of the demo's phantoms, which is in the default output folder."""
    first = (read_json(trained_on).get("training") or [{"image": ""}])[0]["image"]
    if Path(first).is_relative_to(demo_dir.absolute()):
        raise InputError(
            f"The model in {trained_on.parent} was trained on the demo's generated images and knows nothing of "
            f"{dataset_dir}; give the folder of a run on images of that kind as output_dir. To see what it says all "
            f"the same: dual-skd predict {quoted(dataset_dir)} --model {quoted(trained_on.parent)}"
        )


def refuse_demo(trained: DataList, trained_on: str | Path) -> None:
    """Raises :class:`InputError` where the run's training images aren't the demo's."""
    if not of_demo(trained.train[0].image):
        raise InputError(
            f"The model in {Path(trained_on).parent} wasn't trained on the demo data; give images of the kind that it "
            "was trained on as --dataset_dir."
        )
