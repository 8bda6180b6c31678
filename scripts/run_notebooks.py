# SPDX-License-Identifier: Apache-2.0
"""Runs the tutorials of docs/tutorials, each in a new folder; --write stores what their cells show.

Without --write nothing changes: it only proves that they run. What is stored has no times, so that the same outputs
give the same file, and says which version and which code were run: tests/docs/test_notebooks.py compares them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

import dual_skd

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def main() -> int:
    """Runs those asked for; 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01; all without any")
    parser.add_argument("--write", action="store_true", help="store the outputs")
    args = parser.parse_args()
    paths = sorted(path for path in TUTORIALS.glob("*.ipynb") if path.name.startswith(tuple(args.names or [""])))
    if not paths:
        sys.exit(f"No notebook in {TUTORIALS} begins with {' or '.join(args.names)}.")
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # the command beside this Python
        "OMP_NUM_THREADS": "1",  # sums are made in one order
        "PYTHONWARNINGS": "ignore:IProgress not found",  # of other packages' bars, where Jupyter has no widgets
    }
    failed = [path.name for path in paths if not ran(path, write=args.write)]
    return 1 if failed else 0


def ran(path: Path, *, write: bool) -> bool:
    """Runs one notebook and says how it went."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.execution_count, cell.outputs = None, []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}, record_timing=False
        )
        try:
            client.execute()
        except (CellControlSignal, CellTimeoutError, DeadKernelError) as error:
            last = [cell for cell in code if cell.execution_count][-1]
            name, said = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
            print(f"{path.name}: code cell {last.execution_count} of {len(code)} failed, {name}: {said}\n{last.source}")
            return False
    print(f"{path.name}: {len(code)} code cells ran in {time.monotonic() - start:.0f} s")
    if write:
        text = nbformat.writes(normalised(notebook))
        path.write_text(text.replace(f"{folder}/", "") + "\n", encoding="utf-8")
    return True


def normalised(notebook: NotebookNode) -> NotebookNode:
    """The notebook with nothing in it that another run of the same code would change."""
    for place, cell in enumerate(notebook.cells, start=1):
        cell.id, cell.metadata = f"cell-{place}", {}
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    notebook.metadata = {
        "dual_skd": {"code": code_hash(notebook.cells), "version": dual_skd.__version__},
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
    }
    return notebook


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with pieces of one stream in one, as a terminal shows them: what a bar wrote over is gone."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in output.text.split("\n"))
    return kept


def code_hash(cells: list[dict]) -> str:
    """SHA-256 of the code cells, so that code changed after it was run is found out."""
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
