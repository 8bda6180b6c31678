# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from dual_skd.security.audit import audit_bundle
from dual_skd.security.logging_conf import problems_of_logging_conf

OURS = Path(__file__).parents[2] / "bundle" / "configs" / "logging.conf"


def problems(folder: Path, old: str, new: str) -> list[tuple[str, str]]:
    text = OURS.read_text()
    assert old in text
    path = folder / "logging.conf"
    path.write_text(text.replace(old, new))
    return problems_of_logging_conf(path.read_bytes())


def test_our_own_file_passes():
    assert problems_of_logging_conf(OURS.read_bytes()) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("args=(sys.stdout,)", "args=(__import__('os').system('touch canary'),)", "handler_console/args"),
        ("args=(sys.stdout,)", "args=(os.environ,)", "handler_console/args"),
        ("args=(sys.stdout,)", "args=(sys.stdout.fileno(),)", "handler_console/args"),
        ("args=(sys.stdout,)", "args=()\nkwargs={'stream': open('canary', 'w')}", "handler_console/kwargs"),
        ("args=(sys.stdout,)", "args=%(evil)s\nevil=(sys.stdout,)", "handler_console/args"),
        ("args=(sys.stdout,)", "args=('/tmp/canary',)", "handler_console/args"),
        ("args=(sys.stdout,)", "args=('../canary',)", "handler_console/args"),
        ("args=(sys.stdout,)", "args=()\nkwargs={'filename': '~/canary'}", "handler_console/kwargs"),
        ("args=(sys.stdout,)", "args=['C','a']", "handler_console/args"),
        ("args=(sys.stdout,)", "args=(b'C','a')", "handler_console/args"),
        ("args=(sys.stdout,)", "args={'C'}", "handler_console/args"),
        ("args=(sys.stdout,)", "args='Ca'", "handler_console/args"),
        ("args=(sys.stdout,)", "args=('victim', 'w')", "handler_console/args"),
        ("args=(sys.stdout,)", "args=('cucim.py', 'w')", "handler_console/args"),
        ("args=(sys.stdout,)", "args=('models/run.log',)", "handler_console/args"),
        ("args=(sys.stdout,)", "args=()\nkwargs=[('filename', 'C')]", "handler_console/kwargs"),
        ("class=StreamHandler", "class=subprocess.Popen", "handler_console/class"),
        ("class=StreamHandler", "class=handlers.SocketHandler", "handler_console/class"),
        ("class=StreamHandler", "class=os.system('touch canary')", "handler_console/class"),
        ("[formatter_plain]", "[formatter_plain]\nclass=evil.Formatter", "formatter_plain/class"),
        ("[formatter_plain]", "[formatter_plain]\ndefaults=open('canary', 'w')", "formatter_plain/defaults"),
    ],
)
def test_entries_that_would_be_evaluated_are_refused(tmp_path, monkeypatch, old, new, place):
    monkeypatch.chdir(tmp_path)
    assert [found for found, _ in problems(tmp_path, old, new)] == [place]
    assert not (tmp_path / "canary").exists()


def test_literals_and_classes_of_the_standard_library_pass(tmp_path):
    assert problems(tmp_path, "class=StreamHandler", "class=logging.handlers.RotatingFileHandler") == []
    assert problems(tmp_path, "args=(sys.stdout,)", "args=('run.log', 'a', 1000, 3)") == []
    assert problems(tmp_path, "[formatter_plain]", "[formatter_plain]\nclass=logging.Formatter") == []


def test_what_cant_be_read_is_refused(tmp_path):
    assert "can't be read" in problems_of_logging_conf(b"no section = 1")[0][1]
    assert "can't be read" in problems_of_logging_conf(b"\xff")[0][1]
    assert "longer" in problems_of_logging_conf(b"[x]\nb" + b" " * 100_000 + b"c")[0][1]


def test_the_audit_of_a_bundle_looks_at_it(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "logging.conf").write_text(OURS.read_text().replace("(sys.stdout,)", "(print('x'),)"))
    assert [(one.file, one.place) for one in audit_bundle(tmp_path).problems] == [
        ("logging.conf", "handler_console/args")
    ]
