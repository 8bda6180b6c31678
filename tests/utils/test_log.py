# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, warnings
from dual_skd.utils.log import set_up
set_up({options})
import monai.bundle
ours = logging.getLogger("dual_skd.some.where")
ours.debug("explained"); ours.info("said"); ours.warning("warned")
logging.getLogger("ignite.engine").error("ignite")
logging.getLogger("other").info("other told"); logging.getLogger("other").warning("other warned")
logging.getLogger("monai.bundle.workflows").warning("no logging file")
warnings.warn("of a library")
warnings.warn("soon gone", FutureWarning)
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", ["said", "Warning: warned", "Warning: other warned", "Warning: of a library"]),
        ("quiet=True", ["Warning: warned", "Warning: other warned", "Warning: of a library"]),
    ],
)
def test_the_log_is_plain_sentences(options, said):
    program = PROGRAM.format(options=options)
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stderr.splitlines() == said and found.stdout == ""


def test_verbose_says_the_rest():
    program = PROGRAM.format(options="verbose=True")
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for line in ("explained", "said", "Error: ignite", "other told", "soon gone", "no logging file"):
        assert line in found.stderr, line


SCRIPT = """
import logging, sys, types
from dual_skd.api import functions as api
from dual_skd.runs import workflow
{before}
ours = logging.getLogger("dual_skd")
def run(*_):
    ours.debug("explained"); ours.info("said"); ours.warning("warned")
    logging.getLogger("other").setLevel("INFO")
    logging.getLogger("other").info("other told"); logging.getLogger("other").warning("other warned")
    raise SystemExit
workflow.Workflow.run = run
try:
    api.train("demo")
finally:
    ours.info("afterwards")
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("", ["said", "Warning: warned", "Warning: other warned"]),
        ("logging.getLogger('dual_skd').setLevel('WARNING')", ["Warning: warned", "Warning: other warned"]),
        ("logging.basicConfig(format='own: %(message)s')", ["own: warned", "own: other told", "own: other warned"]),
        (
            "sys.modules['ipykernel'] = types.ModuleType('ipykernel')",
            ["warned", "other warned"],
        ),  # Python's last resort
    ],
)
def test_a_script_is_told_what_the_command_tells_unless_it_has_a_log_of_its_own(before, said):
    program = [sys.executable, "-c", SCRIPT.format(before=before)]
    found = subprocess.run(program, capture_output=True, text=True, check=True)
    assert found.stderr.splitlines() == said and found.stdout == ""


NAMES = """
import logging, sys, warnings
from dual_skd.errors import InputError, show_input_errors_plainly
{before}
logging.getLogger("dual_skd.a").info("found %s\\nin %s", "a\\x1b[2J\\nFORGED", InputError("b\\x7f\\u202e\\nFORGED"))
logging.getLogger("monai.b").warning(f"said: {{InputError(chr(27) + chr(10) + 'FORGED')}} \\x9b\\ud800")
"""


@pytest.mark.parametrize(
    "before",
    [
        "from dual_skd.utils.log import set_up; set_up()",
        "import logging.config, dual_skd.runs.model_file as m; from pathlib import Path; logging.config.fileConfig("
        "Path(m.bundle_root()) / 'configs' / 'logging.conf'); show_input_errors_plainly()",
    ],
    ids=["command", "monai.bundle run"],
)
def test_names_in_the_log_act_on_no_terminal_and_begin_no_line(before):
    found = subprocess.run([sys.executable, "-c", NAMES.format(before=before)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert (found.stderr or found.stdout).replace("Warning: ", "").splitlines() == [
        r"found a\x1b[2J\nFORGED", r"in b\x7f\u202e\nFORGED", r"said: \x1b\nFORGED \x9b\ud800",
    ]  # fmt: skip
