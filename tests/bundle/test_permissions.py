# SPDX-License-Identifier: Apache-2.0
"""Who may read what a run writes: pictures, patients and names of files are for the user alone, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dual_skd.evaluation.report import write_report
from dual_skd.serving.export.export import export

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions are others elsewhere")
pytest.importorskip("highdicom")

# of everything in output_dir, by pattern; the first that fits counts
PRIVATE_FOLDERS = ("cache", "cache/*", "explanations", "sr")
PRIVATE = (
    *("cache/*/*.pt", "explanations/*.png", "sr/*.dcm", "report/report.html"),  # pictures, ids
    *("datalist*.json", "predictions*.csv"),  # patients and names of files
    *("run.json", "last.pt", "previous.pt"),  # the path of the data
)
AS_THE_UMASK_SAYS = (
    *("models/model.pt", "models/model.safetensors", "models/auxiliary.pt"),
    *("metrics.json", "selection_report.csv", "report/model_card.md", "report/plots/*", "tensorboard/*"),
    *("export/export.json", "export/export.md", "export/model.ts"),
)
FOLDERS = ("models", "report", "report/plots", "tensorboard", "export")


def modes(folder: Path) -> Iterator[tuple[str, int, bool]]:
    for path in sorted(folder.rglob("*")):
        yield path.relative_to(folder).as_posix(), stat.S_IMODE(path.stat().st_mode), path.is_dir()


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(Path(name).match(f"/{pattern}") or Path(f"/{name}").match(f"/{pattern}") for pattern in patterns)


def test_pictures_and_patients_are_for_the_user_alone_where_all_may_read_the_rest(tmp_path, run, tiny, demo):
    output, former = tmp_path / "run", os.umask(0)  # of others, see tests/utils/test_files.py
    try:
        run("train.json", **tiny | {"epochs": 2}, output_dir=str(output), cache="disk")
        run("evaluate.json", output_dir=str(output))
        run("evaluate.json", output_dir=str(output), dataset_dir=str(demo / "datalist.csv"), report_as="elsewhere")
        run("inference.json", output_dir=str(output), dataset_dir=str(demo / "images"), explain=True, dicom_sr=True)
        write_report(output, resamples=5, speed=False)
        export(output, formats=["torchscript"], images=2, seconds=0.01)
    finally:
        os.umask(former)
    for name, mode, folder in (found := list(modes(output))):
        private = fits(name, PRIVATE_FOLDERS if folder else PRIVATE)
        assert private or fits(name, FOLDERS if folder else AS_THE_UMASK_SAYS), f"whose is {name}?"
        assert mode == (0o777 if folder else 0o666) & (0o700 if private else 0o777), name
    for pattern in (*PRIVATE, *AS_THE_UMASK_SAYS, *PRIVATE_FOLDERS, *FOLDERS):
        assert any(fits(name, (pattern,)) for name, _, _ in found), f"nothing is {pattern}"
