# SPDX-License-Identifier: Apache-2.0
"""Checks a bundle before it is given away: a folder, or the zip that ``package_bundle`` made. Needs no network.

    python -m scripts.release.verify_bundle [BUNDLE] [--only files version ...]

One line per check, ``ok`` or ``failed`` with the reason; exit code 1 when one failed. The checks are those that MONAI's
Model Zoo runs on a bundle (files, version, metadata, network_def against the metadata, export to TorchScript) and more:

    name        folder and zip are called as MONAI Label and the Zoo expect
    files       required files, licence, licence lines
    version     the same in metadata, changelog, package and pyproject.toml
    metadata    the fields of MONAI's schema
    packages    pinned versions lie within the floors of pyproject.toml
    configs     ids that other programs look for, no path of one machine
    label       what MONAI Label's classification needs of inference.json
    sizes       no file over 5 MB that the manifest doesn't list
    manifest    SHA-256 of every file, nothing missing, nothing added
    run         training, evaluation, inference from three working directories, one epoch on 24 images, equal results
    properties  MONAI's check_properties on the three workflows
    network     MONAI's verify_net_in_out, and the whole shape of the output
    torchscript MONAI's ckpt_export, and equal outputs after reloading
    load        monai.bundle.load of the folder, with equal outputs

The first nine only read files and take less than a second. The others take a minute; they work on a copy, in processes
of their own that see the bundle's own code and not an installed one, without a GPU, every proxy leading nowhere.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from scripts import ROOT
from scripts.release.bundle import FOLDER, Bundle, CheckFailed, open_bundle
from scripts.release.bundle_checks import CHECKS

NETWORK_CHECKS = ("properties", "network", "torchscript", "load")
ALL = (*CHECKS, "run", *NETWORK_CHECKS)
COUNTS = {"train": 24, "val": 9, "test": 9}
CONFIGS = {"training": "train.json", "evaluating": "evaluate.json", "inference": "inference.json"}
WORKING_DIRECTORIES = ("repository root", "bundle root", "elsewhere")
LIMIT_SECONDS = 600  # of one process, which needs far less

# The commands of the README in one process, since most of the time goes into imports; argv as a shell would give it.
COMMANDS = """
import json, runpy, sys
root, commands = json.loads(sys.argv[1])
for words in commands:
    sys.argv = ["monai.bundle", "run", *words]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
import dual_skd
if not dual_skd.__file__.startswith(root):
    sys.exit(f"the code came from {dual_skd.__file__}, expected the bundle's own in {root}")
"""
DEMO = "import json, sys; from dual_skd.data import write_demo; write_demo(sys.argv[1], counts=json.loads(sys.argv[2]))"


def reason_in(text: str) -> str:
    """The line of a process's output that says why it failed.

    Of several errors it is the first, since Python prints the cause before what wraps it, and MONAI wraps a lot.
    """
    lines = text.splitlines()
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors[0] if errors else lines[-1]).removeprefix("Error: ")


class BundleCopy:
    """A copy of the bundle, the runs made with it, and the processes that make them."""

    def __init__(self, bundle: Bundle, scratch: Path) -> None:
        self.bundle = bundle
        self.scratch = scratch
        self.runs: dict[str, Path | CheckFailed] = {}

    @cached_property
    def root(self) -> Path:
        """The copy; beside it a folder ``scripts``, which must not get in the way of the bundle's modules."""
        root = self.scratch / "checkout" / FOLDER
        for name in self.bundle.files:
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.bundle.root / name, target)
        (root.parent / "scripts").mkdir()
        (root.parent / "scripts" / "__init__.py").write_text("")
        return root

    def python(self, *arguments: str, cwd: Path, on_path: bool = True) -> None:
        """Runs this Python offline and without a GPU; ``on_path`` puts the copy before whatever is installed.

        Raises:
            CheckFailed: with the error that the process ended by, see :func:`reason_in`.
        """
        nowhere = "http://127.0.0.1:9"  # the discard port: whatever asks the network fails at once
        dropped = ("PYTHONSAFEPATH", "no_proxy", "NO_PROXY")
        path = os.pathsep.join(filter(None, (str(self.root) if on_path else "", os.environ.get("PYTHONPATH", ""))))
        env = {name: value for name, value in os.environ.items() if name not in dropped} | {
            "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_CACHE_HOME": str(self.scratch / "cache"), "http_proxy": nowhere, "https_proxy": nowhere,
            "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "PYTHONPATH": path,
        }  # fmt: skip
        try:
            done = subprocess.run(
                [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"took more than {LIMIT_SECONDS} s") from None
        if done.returncode:
            raise CheckFailed(reason_in(done.stderr.strip() or done.stdout.strip() or "no message"))

    @cached_property
    def data(self) -> Path:
        """A few images of the embedded demo data."""
        self.python("-c", DEMO, str(self.scratch / "data"), json.dumps(COUNTS), cwd=self.scratch)
        return self.scratch / "data"

    def output(self, place: str) -> Path:
        """Output folder of training, evaluation and inference from a place; made on first use."""
        if place not in self.runs:
            try:
                self.runs[place] = self._run(place)
            except CheckFailed as error:
                self.runs[place] = CheckFailed(f"run from {place}: {error}")
        found = self.runs[place]
        if isinstance(found, CheckFailed):
            raise found
        return found

    def _run(self, place: str) -> Path:
        elsewhere = self.scratch / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        directories = dict(zip(WORKING_DIRECTORIES, (self.root.parent, self.root, elsewhere), strict=True))
        cwd = directories[place]
        configs = Path(os.path.relpath(self.root / "configs", cwd)) if place != "elsewhere" else self.root / "configs"
        options = {
            "training": ["--dataset_dir", str(self.data), "--epochs", "1"],
            "evaluating": [],
            "inference": ["--dataset_dir", str(self.data / "images")],
        }
        shared = ["--output_dir", "made", "--num_workers", "0"]
        commands = [
            [step, "--config_file", str(configs / CONFIGS[step]), *more, *shared] for step, more in options.items()
        ]
        # from its own folder the bundle is found without help: "python -m" looks into the working directory first
        given = json.dumps([str(self.root), commands])
        self.python("-c", COMMANDS, given, cwd=cwd, on_path=place != "bundle root")
        for name in ("models/model.pt", "metrics.json", "predictions_test.csv", "predictions.csv"):
            if not (cwd / "made" / name).is_file():
                raise CheckFailed(f"no {name} was written")
        with (cwd / "made" / "predictions.csv").open(newline="", encoding="utf-8") as file:
            rows = len(list(csv.reader(file))) - 1
        if rows != sum(COUNTS.values()):
            raise CheckFailed(f"predictions.csv has {rows} rows for {sum(COUNTS.values())} images")
        return cwd / "made"

    def check_run(self) -> str:
        tables = {place: (self.output(place) / "predictions_test.csv").read_bytes() for place in WORKING_DIRECTORIES}
        different = [place for place in WORKING_DIRECTORIES if tables[place] != tables[WORKING_DIRECTORIES[0]]]
        if different:
            raise CheckFailed(f"predictions differ between {WORKING_DIRECTORIES[0]} and {', '.join(different)}")
        return f"{', '.join(CONFIGS)} from {', '.join(WORKING_DIRECTORIES)}: equal predictions"

    @cached_property
    def answers(self) -> dict[str, Path]:
        """Where the process of the network checks leaves its answers."""
        return {name: self.scratch / f"{name}.json" for name in NETWORK_CHECKS}

    def check_network(self, name: str, wanted: Sequence[str]) -> str:
        """One of the network checks; all wanted ones are made by one process, the first time."""
        answer = self.answers[name]
        if not answer.is_file():
            output = self.output("elsewhere")
            script = str(Path(__file__).with_name("verify_bundle_network.py"))
            arguments = [str(self.root), str(output), str(self.data), str(self.scratch), *wanted]
            self.python(script, *arguments, cwd=self.scratch / "elsewhere")
        found = json.loads(answer.read_text())
        if not found["ok"]:
            raise CheckFailed(found["detail"])
        return found["detail"]


def attempt(name: str, check: Callable[[], str]) -> bool:
    """Makes one check and prints its line; whatever a check stumbles over is a reason, not the end of the others."""
    start = time.perf_counter()
    try:
        word, detail = "ok", check()
    except CheckFailed as error:
        word, detail = "failed", str(error)
    except Exception as error:
        word, detail = "failed", f"{type(error).__name__}: {error}"
    sys.stdout.write(f"{word:7} {name:12} {detail} ({time.perf_counter() - start:.1f} s)\n")
    sys.stdout.flush()
    return word == "ok"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", default=ROOT / "bundle", help="folder or zip (default: bundle)")
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL, metavar="CHECK", help=f"of {', '.join(ALL)}")
    given = parser.parse_args(arguments)
    wanted = [name for name in ALL if name in given.only]
    with tempfile.TemporaryDirectory(prefix="verify_bundle_") as folder:
        scratch = Path(folder).resolve()
        try:
            bundle = open_bundle(given.bundle, scratch / "unpacked")
        except CheckFailed as error:
            sys.stdout.write(f"failed  open         {error}\n")
            return 1
        copy = BundleCopy(bundle, scratch)
        of_network = [name for name in NETWORK_CHECKS if name in wanted]
        passed = []
        for name in wanted:
            if name in CHECKS:
                passed.append(attempt(name, lambda name=name: CHECKS[name](bundle)))
            elif name == "run":
                passed.append(attempt(name, copy.check_run))
            else:
                passed.append(attempt(name, lambda name=name: copy.check_network(name, of_network)))
    failed = passed.count(False)
    verdict = f"{failed} of {len(passed)} checks failed" if failed else f"all {len(passed)} checks passed"
    sys.stdout.write(f"{given.bundle}: {verdict}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
