# SPDX-License-Identifier: Apache-2.0
"""Damages files of every kind and gives them to what the product reads them with: is each read, or refused by name?

    nice python -m scripts.measure.mutants OUT [--formats png dicom ...] [--seeds 1 2 3] [--count 100]

``count`` mutants per format and seed: flipped bits, cut files, doubled, swapped and overwritten blocks, and length
fields set to extremes. Many are read by one process; a mutant that takes over ``--seconds`` of CPU ends it, and one
that needs over ``--gibibytes`` beyond what the process had is told. Prints a table in Markdown. OUT keeps what every
mutant did (``found.jsonl``) and, in ``failing``, those that were neither read nor refused by a sentence with the file's
name; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dual_skd.errors import InputError
from scripts.markdown import table_head, table_row
from scripts.measure import intact_files

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
OUTCOMES = ("read", "refused", "unnamed", "hang", "over memory", "ended")
ROOM = 8 * 2**30  # of address space beyond the start, so that a bomb ends its process and not the machine


# ------------------------------------------------------------------------------------------------------------- readers


def _read_image(path: Path) -> None:
    from dual_skd.data.reading.reader import read_image

    read_image(path)


def _read_list(path: Path) -> None:
    from dual_skd.data import load_records

    images = path.parent / "images"
    if not images.is_dir():
        images.mkdir()
        for n in range(12):
            Image.fromarray(np.roll(intact_files.smooth(), 3 * n, 1)).save(images / f"{n}.png")
    load_records(path, keep_twins=True)


def _read_numpy(path: Path) -> None:
    from dual_skd.data.reading.reader import read_image

    if path.suffix == ".npy":
        read_image(path)
        return
    _read_list(path)
    for section in ("train", "test"):
        read_image(f"{path}#{section}/1")


def _read_model(path: Path) -> None:
    from dual_skd import load_model

    load_model(path)


def _read_onnx(path: Path) -> None:
    from dual_skd.serving.export.runtimes import open_artefact
    from dual_skd.serving.onnx_predictor import runtime_failures_named

    with runtime_failures_named(path):  # as the predictor opens it
        open_artefact("onnxruntime", path, threads=1)(np.zeros((1, 1, 16, 16), np.float32))


FORMATS: dict[str, tuple[Callable[[], dict[str, bytes]], Callable[[Path], None]]] = {
    "png": (intact_files.png, _read_image),
    "jpeg": (intact_files.jpeg, _read_image),
    "tiff": (intact_files.tiff, _read_image),
    "dicom": (intact_files.dicom, _read_image),
    "nifti": (intact_files.nifti, _read_image),
    "npz": (intact_files.numpy, _read_numpy),
    "csv": (intact_files.csv_table, _read_list),
    "json": (intact_files.json_list, _read_list),
    "model": (intact_files.model, _read_model),
    "onnx": (intact_files.onnx_model, _read_onnx),
}


# -------------------------------------------------------------------------------------------------------------- damage


def mutant(content: bytes, rng: np.random.Generator) -> bytes:
    """A damaged copy of a file."""
    kinds = ("head", "flip", "length", "cut", "block", "doubled", "swapped", "nothing")
    kind = rng.choice(kinds, p=[0.25, 0.2, 0.2, 0.12, 0.08, 0.07, 0.07, 0.01])
    size = len(content)
    changed = bytearray(content)
    if kind in ("nothing", "cut"):
        return b"" if kind == "nothing" else content[: rng.integers(1, size)]
    if kind in ("head", "flip"):
        for place in rng.integers(0, min(1200, size) if kind == "head" else size, rng.integers(1, 9)):
            changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    length = int(rng.choice([1, 2, 4, 8])) if kind == "length" else int(min(rng.integers(4, 400), size // 3))
    start = int(rng.integers(0, min(1200, size - length) if kind == "length" else size - length))
    end = start + length
    if kind == "length":
        value = EXTREMES[rng.integers(len(EXTREMES))] % 256**length
        changed[start:end] = value.to_bytes(length, "little" if rng.integers(2) else "big")
    elif kind == "block":
        changed[start:end] = rng.bytes(length)
    elif kind == "doubled":
        changed[start:start] = changed[start:end]
    else:
        other = int(rng.integers(0, size - length))
        changed[start:end], changed[other : other + length] = content[other : other + length], content[start:end]
    return bytes(changed)


def _with_sums(png: bytes) -> bytes:
    """A PNG file whose checksums are right again, so that more than these is read."""
    changed, place = bytearray(png), 8
    while (end := place + 8 + int.from_bytes(png[place : place + 4], "big")) + 4 <= len(png):
        changed[end : end + 4] = zlib.crc32(png[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(changed)


def mutants_of(format_name: str, seed: int, count: int) -> Iterable[tuple[str, bytes]]:
    """Name and content of each mutant; the same for the same arguments."""
    intact = FORMATS[format_name][0]()
    for number in range(count):
        name, content = list(intact.items())[number % len(intact)]
        rng = np.random.default_rng([seed, zlib.crc32(format_name.encode()), number])
        damaged = mutant(content, rng)
        yield f"{seed}_{number}_{name}", _with_sums(damaged) if name.endswith(".png") and number % 2 else damaged


# ------------------------------------------------------------------------------------------------- a process that reads


def work(format_name: str, seed: int, count: int, done: int, seconds: float) -> None:
    """Reads the mutants after the first ``done``; a line of JSON says that one begins, and another how it ended."""
    read = FORMATS[format_name][1]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        intact = next(iter(FORMATS[format_name][0]().items()))
        (Path(folder) / intact[0]).write_bytes(intact[1])
        read(Path(folder) / intact[0])  # loads the libraries, whose memory isn't the mutants'
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ROOM, -1))
        for number, (name, content) in enumerate(mutants_of(format_name, seed, count)):
            if number < done:
                continue
            path = Path(folder) / name
            path.write_bytes(content)
            print(json.dumps({"format": format_name, "seed": seed, "name": name}), flush=True)
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            before, used = _status("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
            limit = int(used.ru_utime + used.ru_stime + seconds) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (limit, -1))
            outcome, said = _outcome(read, path)
            more = (_status("VmHWM") - before) / 2**30
            print(json.dumps({"outcome": outcome, "said": said, "gibibytes": round(more, 3)}), flush=True)
            path.unlink()


def _outcome(read: Callable[[Path], None], path: Path) -> tuple[str, str]:
    try:
        read(path)
    except InputError as error:
        return ("refused" if path.name in str(error) else "unnamed"), str(error)
    except Exception as error:
        return "unnamed", f"{type(error).__name__}: {error}"
    return "read", ""


def _status(what: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


# ------------------------------------------------------------------------------------------------------------ the whole


def measure(
    out: Path, formats: Sequence[str], seeds: Sequence[int], count: int, *, seconds: float = 10, gibibytes: float = 1
) -> list[dict[str, Any]]:
    """What every mutant did, those of a former run as well.

    Args:
        out: folder of ``found.jsonl`` and ``failing``; it is made.
        formats: of :data:`FORMATS`.
        seeds: of the damage.
        count: mutants per format and seed.
        seconds: of CPU that one mutant may take.
        gibibytes: that one may need beyond what the process had.
    """
    out.mkdir(parents=True, exist_ok=True)
    table_file = out / "found.jsonl"
    found = [json.loads(line) for line in table_file.read_text().splitlines()] if table_file.is_file() else []
    for format_name, seed in ((one, seed) for seed in seeds for one in formats):
        done = sum(one["format"] == format_name and one["seed"] == seed for one in found)
        while done < count:
            fresh = _run(format_name, seed, count, done, seconds)
            if not fresh:
                raise RuntimeError(f"the process that reads {format_name} ended before it began")
            for one in fresh:
                if one["outcome"] in ("read", "refused") and one["gibibytes"] > gibibytes:
                    one["outcome"] = "over memory"
            found += fresh
            done += len(fresh)
            with table_file.open("a") as file:
                file.writelines(json.dumps(one) + "\n" for one in fresh)
            _keep(out / "failing", format_name, seed, count, {one["name"] for one in fresh if failed(one)})
    return [one for one in found if one["format"] in formats and one["seed"] in seeds]


def failed(one: dict[str, Any]) -> bool:
    """Whether a mutant was neither read nor refused by name."""
    return one["outcome"] not in ("read", "refused")


def _run(format_name: str, seed: int, count: int, done: int, seconds: float) -> list[dict[str, Any]]:
    """What the mutants did until all were read or one ended the process."""
    words = [
        sys.executable,
        "-m",
        "scripts.measure.mutants",
        "--work",
        format_name,
        *map(str, (seed, count, done, seconds)),
    ]
    ended = subprocess.run(words, capture_output=True, text=True, errors="replace")
    found: list[dict[str, Any]] = []
    for line in filter(lambda line: line.startswith("{"), ended.stdout.splitlines()):
        one = json.loads(line)
        if "name" in one:
            found.append({**one, "outcome": "ended", "said": f"status {ended.returncode}", "gibibytes": 0.0})
        else:
            found[-1].update(one)
    if found:
        found[-1]["log"] = ended.stderr.count("\n")
    if found and found[-1]["outcome"] == "ended" and ended.returncode == -signal.SIGXCPU:
        found[-1]["outcome"] = "hang"
    return found


def _keep(folder: Path, format_name: str, seed: int, count: int, names: set[str]) -> None:
    for name, content in mutants_of(format_name, seed, count) if names else ():
        if name in names:
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)


def summary(found: Sequence[dict[str, Any]]) -> str:
    """A table in Markdown: the outcomes per format, and the most memory that one mutant needed."""
    rows = []
    for format_name in dict.fromkeys(one["format"] for one in found):
        of_format = [one for one in found if one["format"] == format_name]
        counts = Counter(one["outcome"] for one in of_format)
        peak, lines = max(one["gibibytes"] for one in of_format), sum(one.get("log", 0) for one in of_format)
        cells = (format_name, len(of_format), *(counts[outcome] for outcome in OUTCOMES), f"{peak:.2f}", lines)
        rows.append(table_row([str(cell) for cell in cells]))
    return "\n".join([*table_head(["format", "mutants", *OUTCOMES, "most GiB", "lines of log"]), *rows])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--count", type=int, default=100, help="mutants per format and seed (default: 100)")
    parser.add_argument("--seconds", type=float, default=10, help="of CPU per mutant (default: 10)")
    parser.add_argument("--gibibytes", type=float, default=1, help="beyond the start, per mutant (default: 1)")
    args = parser.parse_args(argv)
    found = measure(args.out, args.formats, args.seeds, args.count, seconds=args.seconds, gibibytes=args.gibibytes)
    print(summary(found))
    for one in filter(failed, found):
        print(f"{one['outcome']}: {one['name']}: {one['said'][:300]!r}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], *map(int, sys.argv[3:6]), float(sys.argv[6]))
    else:
        main()
