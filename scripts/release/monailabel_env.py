# SPDX-License-Identifier: Apache-2.0
"""Makes an environment with MONAI Label that can serve this bundle.

    python -m scripts.release.monailabel_env FOLDER

FOLDER becomes a virtual environment of this Python (3.10 to 3.12); one that is there already is completed. MONAI Label
0.8.5 asks for packages that don't go together as they are, so that

* it is installed without its own list, of which all is taken but ``sam2``, which builds against a torch of its own and
  has nothing to do with classification, and those extras of MONAI that a server of this bundle doesn't use;
* ``pydicom-seg`` 0.4.1, which it loads at its start, takes one name from a module that pydicom 3 no longer has. It is
  pointed to where the name is now, so that the bundle reads DICOM with the pydicom that its own floors ask for.

The bundle's code is not installed: MONAI Label runs what lies in the bundle's folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import PROJECT
from scripts.release.project import dependencies

WITHOUT_DEPENDENCIES = ("monailabel==0.8.5", "pydicom-seg==0.4.1")
LEFT_OUT = ("monai", "sam2", "pydicom-seg")  # of MONAI Label's list
OF_MONAI = ("itk", "scikit-image", "jsonschema<4")  # what it needs of MONAI's extras, and what pydicom-seg needs
PRINT_REQUIREMENTS = "from importlib.metadata import requires; print('\\n'.join(requires('monailabel')))"
MOVED_MODULE = ("pydicom._storage_sopclass_uids", "pydicom.uid")


def name_of(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def requirements(of_label: Sequence[str], project: str) -> list[str]:
    """What is to be installed beside MONAI Label: its list less what is left out, and this project's dependencies.

    Args:
        of_label: the lines that MONAI Label's metadata give.
        project: content of pyproject.toml.
    """
    kept = [line for line in of_label if name_of(line) not in LEFT_OUT]
    return [*map(str, dependencies(project)), *OF_MONAI, *kept]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the environment")
    folder = parser.parse_args(arguments).folder.absolute()
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
    of_label = subprocess.run(
        [str(python), "-c", PRINT_REQUIREMENTS], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    wanted = requirements(of_label, PROJECT.read_text(encoding="utf-8"))
    subprocess.run([*pip, *wanted], check=True)
    find = "import importlib.util; print(importlib.util.find_spec('pydicom_seg').submodule_search_locations[0])"
    place = subprocess.run([str(python), "-c", find], check=True, capture_output=True, text=True).stdout.strip()
    for path in Path(place).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if MOVED_MODULE[0] in text:
            path.write_text(text.replace(*MOVED_MODULE), encoding="utf-8")
    subprocess.run([str(python), "-c", "import monailabel.app"], check=True, stdout=subprocess.DEVNULL)
    sys.stdout.write(f"MONAI Label is in {folder}; activate it, and see docs/deployment.md for what comes next.\n")


if __name__ == "__main__":
    main()
