# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from full_disk import fill_disk, needs_full
from safetensors.torch import save_file

from dual_skd.errors import InputError
from dual_skd.serving.prediction import Prediction, PredictionTable
from dual_skd.utils.files import (
    DRAFT_SUFFIX,
    Draft,
    make_folder,
    remove_drafts,
    replace_file,
    sha256_of,
    write_csv,
    write_json,
    write_text,
)

WRITERS = {
    "text": lambda draft: draft.write_text("x" * 10_000),
    "torch": lambda draft: torch.save({"a": torch.zeros(100_000)}, draft),
    "safetensors": lambda draft: save_file({"a": torch.zeros(100_000)}, draft),
}


def test_the_content_is_replaced_and_the_former_one_kept_where_a_name_is_given(tmp_path):
    path, former = tmp_path / "new" / "a.txt", tmp_path / "new" / "b.txt"
    for text in ("one", "two", "three"):
        replace_file(path, lambda draft, text=text: draft.write_text(text), former=former)
    assert path.read_text() == "three" and former.read_text() == "two"
    replace_file(path, lambda draft: draft.write_text("four"))
    assert path.read_text() == "four" and former.read_text() == "two"
    assert sorted(os.listdir(path.parent)) == ["a.txt", "b.txt"]


@pytest.mark.skipif(os.name != "posix", reason="folders can't be synchronised elsewhere")
def test_file_and_folder_are_on_the_disk_before_it_is_said(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(
        os, "fsync", lambda number: steps.append("dir" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
    )
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append("rename"), rename(old, new)))
    replace_file(tmp_path / "a", lambda draft: draft.write_text("x"))
    assert steps == ["file", "rename", "dir"]


@needs_full
@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "safetensors"])  # which puts its own in place
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, kind, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("good")
    fill_disk(monkeypatch)
    with pytest.raises(InputError) as caught:
        replace_file(path, WRITERS[kind], former=tmp_path / "b.txt")
    assert f"{path} can't be written (" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert kind != "text" or "No space left on device" in str(caught.value)
    assert path.read_text() == "good" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_larger_than_allowed_is_one_sentence_too(tmp_path, kind):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "a.txt"
    path.write_text("good")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(InputError, match="can't be written"):
            replace_file(path, WRITERS[kind])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "good" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_named_where_the_writer_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr("dual_skd.utils.files.shutil.disk_usage", lambda folder: SimpleNamespace(free=4096))

    def write(draft):
        raise RuntimeError("unexpected pos 25600 vs 25496")

    with pytest.raises(InputError, match="can't be written .No space left on device."):
        replace_file(tmp_path / "a", write)


def test_an_error_of_the_writer_itself_is_not_hidden(tmp_path):
    with pytest.raises(TypeError):
        replace_file(tmp_path / "a", lambda draft: draft.write_text(5))


def test_what_ends_in_the_middle_leaves_what_was_there(tmp_path):
    def rows():
        yield ["a", "b"]
        raise KeyboardInterrupt

    write_csv(tmp_path / "a.csv", [["a", "b"], [1, "x,y"]])
    with pytest.raises(KeyboardInterrupt):
        write_csv(tmp_path / "a.csv", rows())
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\r\n1,"x,y"\r\n'


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path):
    write_text(tmp_path / "a.txt", "former")
    (tmp_path / "link").symlink_to(tmp_path / "a.txt")
    write_text(tmp_path / "link", "ä")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "a.txt").read_text(encoding="utf-8") == "ä"
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    write_json(tmp_path / "pipe", {"a": 1}, indent=2)
    assert json.loads(reader.communicate(timeout=60)[0]) == {"a": 1}
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_to_a_file_that_is_not_there_yet_stays_one(tmp_path):
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "new" / "a.txt")
    write_text(tmp_path / "link", "a")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "second").is_symlink()
    assert (tmp_path / "new" / "a.txt").read_text() == "a" and os.listdir(tmp_path / "new") == ["a.txt"]
    (tmp_path / "round").symlink_to("round")
    write_text(tmp_path / "round", "b")
    assert (tmp_path / "round").read_text() == "b"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="this system has no names of open files")
@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}", "link"])
@pytest.mark.parametrize("mode", ["a", "w"])
def test_an_open_file_is_added_to_and_keeps_its_place(tmp_path, name, mode):
    path = tmp_path / "out.txt"
    path.write_text("former\n")
    number = path.stat().st_ino
    with path.open(mode) as file:
        print("before", file=file, flush=True)
        if name == "link":
            (tmp_path / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
            name = str(tmp_path / "link")
        for text in ("one\n", "two\n"):
            write_text(name.format(file.fileno()), text)
        if "thread" not in name:  # the name of a thread's is opened anew
            print("after", file=file, flush=True)
    assert path.read_text().removeprefix("former\n").removesuffix("after\n") == "before\none\ntwo\n"
    assert path.read_text().startswith("former") == (mode == "a") and path.stat().st_ino == number
    assert {"out.txt"} <= set(os.listdir(tmp_path)) <= {"out.txt", "link"}


def test_a_table_of_predictions_goes_where_its_path_leads(tmp_path):
    def table(path):
        table = PredictionTable(path, ["image", "problem"])
        for image in ("a.png", "b.png"):
            table.append([Prediction(image, problem="none")])
        table.publish()

    (tmp_path / "a.csv").write_text("former")
    (tmp_path / "link.csv").symlink_to("a.csv")
    table(tmp_path / "link.csv")
    written = "image,problem\na.png,none\nb.png,none\n"
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "a.csv").read_text() == written
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    table(tmp_path / "pipe")
    assert reader.communicate(timeout=60)[0] == written and (tmp_path / "pipe").is_fifo()


def test_the_standard_output_of_a_command_is_added_to(tmp_path):
    (tmp_path / "out.txt").write_text("former\n")
    code = "from dual_skd.utils.files import write_text; write_text('/dev/stdout', 'new\\n', private=True)"
    with (tmp_path / "out.txt").open("a") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, timeout=60)
    assert (tmp_path / "out.txt").read_text() == "former\nnew\n"
    piped = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60)
    assert piped.stdout == b"new\n"


def test_an_open_file_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "a").write_text("a")
    with (tmp_path / "a").open() as file, pytest.raises(InputError, match="/dev/fd/.* can't be written"):
        write_text(f"/dev/fd/{file.fileno()}", "b")
    with pytest.raises(InputError, match="can't be written"):
        write_text(tmp_path / ("a" * 300), "b")


def test_the_sum_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "b").write_bytes(b"abc" * 2**20)
    assert sha256_of(str(tmp_path / "b")) == hashlib.sha256(b"abc" * 2**20).hexdigest()


def test_a_folder_that_cannot_be_made_or_written_into_is_one_sentence(tmp_path, monkeypatch):
    assert make_folder(tmp_path / "a" / "b").is_dir() and make_folder(str(tmp_path / "a")) == tmp_path / "a"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/c can't be made .Not a directory."):
        make_folder(tmp_path / "file" / "c")
    monkeypatch.setattr("dual_skd.utils.files.os.access", lambda *arguments: False)
    with pytest.raises(InputError, match="can't be written into"):
        make_folder(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="permissions are others elsewhere")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_private_file_is_for_the_user_alone_from_its_first_byte_and_others_are_as_the_umask_says(
    tmp_path, umask, kind
):
    seen = []

    def write(draft):
        seen.append(stat.S_IMODE(draft.stat().st_mode))
        WRITERS[kind](draft)

    (tmp_path / "private").write_text("")
    os.chmod(tmp_path / "private", 0o644)  # as a former version left it
    former = os.umask(umask)
    try:
        replace_file(tmp_path / "private", write, private=True)
        replace_file(tmp_path / "public", write)
        make_folder(tmp_path / "a" / "b", private=True)
    finally:
        os.umask(former)
    public = 0o666 & ~umask
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("private", "public", "a", "a/b")}
    assert modes == {"private": 0o600, "public": public, "a": 0o777 & ~umask, "a/b": 0o700}
    assert seen == [0o600, public]
    assert make_folder(tmp_path / "a", private=True) and stat.S_IMODE((tmp_path / "a").stat().st_mode) == modes["a"]


def test_drafts_of_two_writers_at_once_are_two_and_the_last_counts(tmp_path):
    one, other = Draft(tmp_path / "a.csv"), Draft(tmp_path / "a.csv")
    one.write(lambda file: file.write_text("one"))
    other.write(lambda file: file.write_text("other"))
    other.publish()
    one.publish()
    assert (tmp_path / "a.csv").read_text() == "one" and os.listdir(tmp_path) == ["a.csv"]
    assert len(Draft(tmp_path / ("ä" * 120)).file.name.encode()) < 255


def test_a_draft_goes_with_its_object_but_not_with_a_forked_copy(tmp_path):
    draft = Draft(tmp_path / "a.csv")
    if (child := os.fork()) == 0:
        draft.discard()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.listdir(tmp_path) == [draft.file.name]
    del draft
    assert not os.listdir(tmp_path)


def test_old_drafts_alone_are_removed_where_others_write(tmp_path):
    (tmp_path / f"old{DRAFT_SUFFIX}").write_text("")
    os.utime(tmp_path / f"old{DRAFT_SUFFIX}", (0, 0))
    draft = Draft(tmp_path / "a.csv")
    remove_drafts(tmp_path, older_than=3600)
    assert os.listdir(tmp_path) == [draft.file.name]
    remove_drafts(tmp_path)
    assert not os.listdir(tmp_path)
