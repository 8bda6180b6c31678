# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from dual_skd.data.reading.dicom_file import NotAnImage
from dual_skd.errors import (
    InputError,
    SelectionError,
    choose,
    input_error_behind,
    sentence_of,
    show_input_errors_plainly,
)

NOT_UTF8 = UnicodeEncodeError("utf-8", os.fsdecode(b"/data/Stra\xdfe/a.png"), 10, 11, "surrogates not allowed")


def wrapped(error: Exception, explicit: bool) -> Exception:
    """The error as it arrives through three layers of a library."""
    for layer in range(3):
        try:
            try:
                raise error
            except Exception as inner:
                raise RuntimeError(f"layer {layer}") from (inner if explicit else None)
        except RuntimeError as outer:
            error = outer
    return error


@pytest.mark.parametrize("explicit", [True, False])
def test_the_input_error_is_found_behind_its_wrappings(explicit):
    cause = SelectionError("too wide")
    assert input_error_behind(wrapped(cause, explicit)) is cause
    assert input_error_behind(cause) is cause


def test_other_errors_and_circles_hold_none():
    assert input_error_behind(None) is None
    assert input_error_behind(wrapped(ValueError("else"), True)) is None
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert input_error_behind(first) is None


def test_an_input_error_is_shown_as_its_sentence_and_others_as_before(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda *arguments: seen.append(arguments))
    show_input_errors_plainly()
    hook = sys.excepthook
    show_input_errors_plainly()  # a second run in the same process
    assert sys.excepthook is hook
    error = wrapped(InputError("No images in here; add some."), True)
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "\nError: No images in here; add some.\n" and not seen
    other = KeyError("x")
    sys.excepthook(KeyError, other, None)
    assert seen == [(KeyError, other, None)] and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        ('{"a": 1,\n "b": }', "a.json", "a.json isn't JSON: Expecting value in line 2, column 7; mend it there."),
        ("a: 1\nb: [1, 2\nc: 3\n", "a.yaml", "a.yaml isn't YAML: expected ',' or ']', but got ':' in line 3, "),
        ("a = 1", "a.toml", "a.toml isn't a config file; give one whose name ends in .json, .yaml or .yml."),
        ('{"run": ["$@loss"]}', "a.json", "A config refers to @loss, which no config file has; "),
        ('{"run": ["@a"], "a": "@b", "b": "@a"}', "a.json", "In the config, @a and @b refer to each other; "),
        ('{"run": ["@a"], "a": {"_target_": "torch.nowhere.N"}}', "a.json", "A config names torch.nowhere.N, which "),
        ('{"fly": 1}', "a.json", "No config file has an entry run that could be run; "),
        (None, "a.json", "There is no config file a.json (in {here}); give its path from this folder, "),
    ],
)  # fmt: skip
def test_what_monai_says_of_configs_is_a_sentence(tmp_path, monkeypatch, content, name, sentence):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content)
    with pytest.raises(Exception) as caught:
        workflow = ConfigWorkflow(name, meta_file=None, logging_file=False)
        workflow.initialize()
        workflow.run()
    assert sentence_of(caught.value).startswith(sentence.format(here=tmp_path))


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("No images in here; add some."), "No images in here; add some."),
        (OSError(errno.ENOSPC, "No space left on device", "run.json"), "The disk is full (run.json can't be written)"),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full; make room"),
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), "a.png can't be opened (Permission denied); "),
        (OSError(errno.EROFS, "Read-only file system", "a.svg"), "a.svg can't be opened (Read-only file system); "),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "The memory of the GPU is full; "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "The memory of this computer "),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "The memory of this computer "),
        (RuntimeError("unable to allocate shared memory(shm) for file"), "The memory that processes share (/dev/shm) "),
        (RuntimeError("unable to resize file </torch_7_0> to the right size"), "The memory that processes "),
        (NOT_UTF8, "A file or a folder has a name that isn't UTF-8 ('/data/Stra\\\\udcdfe/a.png'); rename it."),
        (MemoryError(), "The memory of this computer "),
        (OSError(errno.EEXIST, "File exists", "run/models"), "run/models is a file, and a folder is needed there; "),
        (OSError(errno.EMFILE, "Too many open files"), "Too many files are open; "),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Nobody reads the output any more; "),
        (RuntimeError("can't start new thread"), "No further thread can be started: memory, or a limit"),
    ],
)  # fmt: skip
def test_what_else_fails_outside_is_a_sentence_whoever_wrapped_it(error, sentence, explicit):
    assert sentence_of(error).startswith(sentence)
    assert sentence_of(wrapped(error, explicit)).startswith(sentence)


@pytest.mark.parametrize("wrapping", [False, True])
def test_ctrl_c_ends_with_130_whoever_wrapped_it(wrapping, capsys, monkeypatch):
    error: BaseException = KeyboardInterrupt()
    if wrapping:
        error = RuntimeError("as MONAI has it")
        error.__cause__ = KeyboardInterrupt()
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    show_input_errors_plainly()
    with pytest.raises(SystemExit, match="130"):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "\nStopped by Ctrl-C.\n"


class Failing(torch.utils.data.Dataset):
    """A data set whose images can't be read, as MONAI's transforms say it."""

    def __init__(self, error: Exception, wrapping: bool) -> None:
        self.error, self.wrapping = error, wrapping

    def __len__(self) -> int:
        return 1

    def __getitem__(self, place: int) -> None:
        try:
            raise self.error
        except Exception as error:
            if not self.wrapping:
                raise
            raise RuntimeError("applying transform") from error


@pytest.mark.parametrize("wrapping", [True, False])
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("a\nb.png is empty; copy it again."), r"a\nb.png is empty; copy it again."),
        (NotAnImage("a.dcm can't be read."), "a.dcm can't be read."),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "The disk is full; make room and give the same command again.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.png"),
            "a.png can't be opened (Permission denied); mend its permissions, or give another one.",
        ),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="forks this process")
def test_what_fails_in_a_process_of_the_loader_is_the_same_sentence(error, sentence, wrapping):
    with pytest.raises(Exception) as caught:
        list(torch.utils.data.DataLoader(Failing(error, wrapping), num_workers=1))
    assert "Traceback" in str(caught.value) and sentence_of(caught.value) == sentence


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ZeroDivisionError("division by zero"), FileNotFoundError(2, "No such file", "a"), AssertionError()],
)
def test_errors_that_are_not_known_keep_their_stack(error):
    assert sentence_of(error) is None and sentence_of(wrapped(error, True)) is None


def test_json_that_came_from_no_file_keeps_its_stack():
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert sentence_of(caught.value) is None


def test_input_errors_are_value_errors():
    assert issubclass(SelectionError, InputError) and issubclass(InputError, ValueError)


def test_choose_lists_the_valid_words():
    assert choose({"ema": 1, "mutual": 2}, "mutual", "update") == 2
    with pytest.raises(InputError, match=r"Unknown update 'mutal' \(did you mean mutual\?\); valid: ema, mutual"):
        choose({"ema": 1, "mutual": 2}, "mutal", "update")


class Unreadable(torch.utils.data.Dataset):
    """Images that another library reads, which wraps the error."""

    def __len__(self):
        return 1

    def __getitem__(self, place):
        raise wrapped(SelectionError("a.png can't be read; mend it."), explicit=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_sentence_of_an_error_in_a_process_of_the_loader_is_found(workers):
    with pytest.raises(RuntimeError) as caught:
        next(iter(torch.utils.data.DataLoader(Unreadable(), num_workers=workers)))
    assert sentence_of(caught.value) == "a.png can't be read; mend it."
    assert (("Caught" in str(caught.value)) is (workers == 1)) and "\n" not in str(input_error_behind(caught.value))
