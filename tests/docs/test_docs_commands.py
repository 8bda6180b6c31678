# SPDX-License-Identifier: Apache-2.0
"""Commands on the pages: their files, subcommands and options exist. The README's first two are run by .ci/run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from ast import literal_eval
from pathlib import Path

import pytest
import yaml

from dual_skd.cli.dispatch import parser_of
from dual_skd.options import Evaluation, Prediction, Suggestion, Training

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "bundle" / "docs").glob("*.md"))]
OF_LABEL = {"conf", "studies"}  # of MONAI Label's server
MONAI = {"config_file", "meta_file", "logging_file", "net_id", "filepath", "ckpt_file", "key_in_ckpt", "args_file"}


def commands(page: Path) -> list[list[str]]:
    """Words of the commands in code blocks, fenced or indented, from ``python``, ``torchrun`` or ``dual-skd`` on."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    fenced = [block for language, block in blocks if language in ("", "bash")]
    indented = re.findall(r"^    (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    found = []
    for line in [*"\n".join(fenced).splitlines(), *indented]:
        command = re.search(r"\b(?:python|torchrun) .*|^dual-skd .*", line.split(" #")[0].split("# ")[0])
        if command:
            words = shlex.split(re.sub(r" \.\.\.|[\[\]](?=-|$)|(?<=\w)\]|(?<= )\[", "", command[0]))
            if words[0] == "dual-skd" or "-m" in words:
                found.append(words)
    return found


EVERY = [(page, words) for page in PAGES for words in commands(page)]
OF_BUNDLE = [
    (page, words[words.index("run") + 1 :]) for page, words in EVERY if "monai.bundle" in words and "run" in words
]
OF_PACKAGE = [words[1:] for _, words in EVERY if words[0] == "dual-skd"]
OF_PACKAGE += [words[words.index("dual_skd") + 1 :] for _, words in EVERY if "-m dual_skd " in " ".join(words)]
OF_SCRIPTS = [words[2:] for _, words in EVERY if words[1] == "-m" and words[2].startswith("scripts.")]


def config_files(page: Path, words: list[str]) -> list[Path]:
    given = words[words.index("--config_file") + 1]
    names = literal_eval(given) if given.startswith("[") else [given]
    return [(ROOT / "bundle" if page.parent.parent.name == "bundle" else ROOT) / name for name in names]


def test_commands_of_every_kind_are_found():
    assert len(OF_BUNDLE) > 8 and len(OF_PACKAGE) > 10 and len(OF_SCRIPTS) > 5
    assert any("multi_gpu_train.json" in " ".join(words) for _, words in OF_BUNDLE)


@pytest.mark.parametrize(
    ("page", "words"), OF_BUNDLE, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_a_command_of_the_bundle_names_a_workflow_and_options_that_its_configs_have(page, words):
    known = set(MONAI)
    for path in config_files(page, words):
        known |= {key.removeprefix("+").split("#")[0] for key in json.loads(path.read_text(encoding="utf-8"))}
    assert words[0] in known
    assert {word[2:].split("#")[0] for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("words", OF_PACKAGE, ids=" ".join)
def test_a_command_of_the_package_is_one_that_its_parser_takes(words):
    name, *rest = words
    if name == "-h":
        return
    if {"--help", "-h"} & {*rest}:
        with pytest.raises(SystemExit, match="0"):
            parser_of(name).parse(rest)
    else:
        assert parser_of(name).parse(rest)


@pytest.mark.parametrize("words", OF_SCRIPTS, ids=" ".join)
def test_a_script_exists_and_knows_its_options(words):
    source = ROOT.joinpath(*words[0].split(".")).with_suffix(".py").read_text(encoding="utf-8")
    own = words[: words.index("--")] if "--" in words else words  # what follows is handed on
    for word in own:
        assert not word.startswith("--") or f'"{word}"' in source, word


def test_options_within_sentences_exist():
    fields = {name for kind in (Training, Evaluation, Prediction, Suggestion) for name in kind.model_fields}
    options = (
        MONAI | OF_LABEL | {f"{no}{name.replace('_', '-')}" for name in fields for no in ("", "no-")} | {"help-all"}
    )
    for path in (ROOT / "bundle" / "configs").glob("*.json"):
        options |= set(json.loads(path.read_text(encoding="utf-8")))
    sources = [*(ROOT / "bundle" / "dual_skd").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    parsed = {name for path in sources for name in re.findall(r'"--([\w-]+)"', path.read_text(encoding="utf-8"))}
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for span in re.findall(r"`([^`\n]+)`", text):
            own = (
                "--batch_size" if page.name == "clusters.md" else ("--", "python ", "dual-skd ")
            )  # else of another program
            if not span.startswith(own):
                continue
            for name in re.findall(r"(?<![\w-])--([a-z]\w*(?:-\w+)*)", span):
                assert name in options | parsed, f"{page.name}: --{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_shell_and_yaml_parse(page):
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        assert {"apiVersion", "kind", "spec"} <= yaml.safe_load(block).keys()
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if shutil.which("bash"):
            done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
            assert done.returncode == 0, done.stderr
