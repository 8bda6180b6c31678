# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml can't say: configs and model of the bundle go into the wheel, as ``dual_skd/bundle``.

They stay where MONAI wants them in the repository, beside the package. See ``dual_skd.runs.places``.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BUNDLE = Path("bundle")
FILES = [
    *sorted((BUNDLE / "configs").glob("*.json")),
    *(BUNDLE / name for name in ("configs/logging.conf", "models/model.json", "models/model.pt", "LICENSE")),
    *sorted((BUNDLE / "models").glob("*/*")),
]


class BuildWithBundle(build_py):
    """Builds the package with the files of its bundle."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # they are beside the package
        target = Path(self.build_lib) / "dual_skd" / "bundle"
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for file in FILES:
            (target / file.relative_to(BUNDLE)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / file.relative_to(BUNDLE))

    def get_source_files(self):
        """What a source distribution holds."""
        return [*super().get_source_files(), *map(str, FILES)]


setup(cmdclass={"build_py": BuildWithBundle})
