"""vocabkit/files.py: JSON with clear errors, copies, texts of any kind, folders that appear whole."""

import bz2
import errno
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import ROOT

from vocabkit import files
from vocabkit.corpus.lines import read_texts
from vocabkit.errors import UserError
from vocabkit.files import (
    copy_file,
    copy_range,
    read_json,
    read_json_object,
    read_versioned,
    sha256_file,
    write_json,
)
from vocabkit.outputs import new_directory

# JSON


def test_json_comes_back_as_it_was_and_is_readable(tmp_path):
    value = {"chữ": ["đ", "中", "🙂", "\u2028"], "n": 1.5, "none": None}
    write_json(tmp_path / "x.json", value)
    raw = (tmp_path / "x.json").read_bytes()
    assert "chữ".encode() in raw and raw.endswith(b"}\n")
    assert read_json(tmp_path / "x.json") == read_json_object(tmp_path / "x.json") == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"x.json is missing; give a folder"),
        (b'{"a": \xff}', r"x.json is not UTF-8 text \(byte 6\)"),
        (b'{\n"a": }', r"x.json:2 is not JSON"),
        (b"", r"x.json:1 is not JSON"),
        (b"[1]", r"x.json holds a list, expected an object"),
    ],
)
def test_json_errors_name_the_file(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_json_object(tmp_path / "x.json")


def test_versioned_json_is_checked(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"format": "mine", "version": 1, "a": 2})
    assert read_versioned(path, format="mine", version=1)["a"] == 2
    for wanted in ({"format": "other", "version": 1}, {"format": "mine", "version": 2}):
        with pytest.raises(UserError, match=r"format 'mine' version 1, expected .*make it again"):
            read_versioned(path, **wanted)
    write_json(path, {"a": 2})
    with pytest.raises(UserError, match="format None version None"):
        read_versioned(path, format="mine", version=1)


def test_sha256_is_that_of_hashlib(tmp_path):
    data = os.urandom(3 << 20)
    (tmp_path / "x").write_bytes(data)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()


# Copies


@pytest.fixture
def data(tmp_path) -> bytes:
    content = os.urandom(100_003)
    (tmp_path / "source").write_bytes(content)
    return content


@pytest.mark.parametrize("block", [1000, 64 << 20])
@pytest.mark.parametrize("in_kernel", [True, False])
def test_copy_range_appends_exactly_these_bytes(tmp_path, data, monkeypatch, block, in_kernel):
    monkeypatch.setattr(files, "COPY_BLOCK", block)
    if not in_kernel:  # what macOS lacks, and what other file systems refuse

        def refuse(*_args):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    told = []
    with (
        (tmp_path / "source").open("rb", buffering=0) as reader,
        (tmp_path / "target").open("xb", buffering=0) as writer,
    ):
        writer.write(b"before")
        copy_range(reader, writer, offset=7, count=90_000, progress=told.append)
        copy_range(reader, writer, offset=0, count=0, progress=told.append)
    assert (tmp_path / "target").read_bytes() == b"before" + data[7:90_007]
    assert sum(told) == 90_000


def test_copy_range_notices_a_file_that_is_too_short(tmp_path, data):
    with (
        (tmp_path / "source").open("rb", buffering=0) as reader,
        (tmp_path / "target").open("xb", buffering=0) as writer,
        pytest.raises(UserError, match="source ends 5 bytes early"),
    ):
        copy_range(reader, writer, offset=10, count=len(data) - 5)


def test_copy_range_passes_on_other_errors(tmp_path, data):
    with (
        (tmp_path / "source").open("rb", buffering=0) as reader,
        (tmp_path / "source").open("rb", buffering=0) as closed_for_writing,
        pytest.raises(OSError, match="Bad file descriptor"),
    ):
        copy_range(reader, closed_for_writing, offset=0, count=5)


def test_copy_and_hardlink(tmp_path, data):
    source = tmp_path / "source"
    told = []
    copy_file(source, tmp_path / "copy", progress=told.append)
    copy_file(source, tmp_path / "link", hardlink=True, progress=told.append)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "link").read_bytes() == data
    assert not os.path.samefile(source, tmp_path / "copy") and os.path.samefile(source, tmp_path / "link")
    assert told == [len(data)] * 2
    (tmp_path / "symlink").symlink_to(source)
    copy_file(tmp_path / "symlink", tmp_path / "linked", hardlink=True)
    assert not (tmp_path / "linked").is_symlink() and os.path.samefile(source, tmp_path / "linked")


def test_hardlink_that_cannot_be_made_says_what_to_do(tmp_path, data):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with pytest.raises(UserError, match="cannot be hard-linked .* run again without --hardlink"):
        copy_file(tmp_path / "source", other / "vocabkit_test_link", hardlink=True)


def test_copies_never_overwrite(tmp_path, data):
    (tmp_path / "target").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        copy_file(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"precious"


# Folders that appear whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_directory_appears_with_everything_in_it(tmp_path):
    with new_directory(tmp_path / "out") as part:
        (part / "inside").mkdir()
        (part / "inside" / "file").write_text("x", encoding="utf-8")
        assert names(tmp_path) == ["out.part"]
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "inside" / "file").exists()


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), ZeroDivisionError()])
def test_new_directory_leaves_nothing_after_a_failure(tmp_path, error):
    with pytest.raises(type(error)), new_directory(tmp_path / "out") as part:
        (part / "file").write_text("x", encoding="utf-8")
        raise error
    assert names(tmp_path) == []
    with new_directory(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_new_directory_refuses_what_exists(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("precious", encoding="utf-8")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="out already exists; .*rm -r"), new_directory(out):
        pass
    assert names(tmp_path) == ["out"]


def test_new_directory_needs_a_parent(tmp_path):
    with (
        pytest.raises(UserError, match="is not a folder; make it first: mkdir -p"),
        new_directory(tmp_path / "a" / "out"),
    ):
        pass
    assert names(tmp_path) == []


def test_new_directory_removes_what_a_killed_run_left(tmp_path, capsys):
    (tmp_path / "out.part" / "deep").mkdir(parents=True)
    (tmp_path / "out.part" / "deep" / "old").write_text("half", encoding="utf-8")
    with new_directory(tmp_path / "out") as part:
        assert names(part) == []
    assert "removing" in (err := capsys.readouterr().err) and "out.part" in err and "interrupted" in err
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == []


def test_refused_second_run_does_not_disturb_the_first(tmp_path):
    with new_directory(tmp_path / "out") as part:
        (part / "file").write_text("x", encoding="utf-8")
        with (
            pytest.raises(UserError, match="out.part is being written by another run; wait for it, or"),
            new_directory(tmp_path / "out"),
        ):
            pass
    assert names(tmp_path / "out") == ["file"]


@pytest.mark.parametrize(
    ("moment", "what", "message"),
    [
        ("mkdir", lambda out, part: os.mkdir(part), "out.part is being written by another run"),
        ("flock", lambda out, part: os.rmdir(part), "out.part is being written by another run"),
        ("flock", lambda out, part: (os.rmdir(part), os.mkdir(part)), "is being written by another run"),
        ("flock", lambda out, part: os.mkdir(out), "out already exists"),
    ],
)
def test_races_with_another_run_end_in_one_error(tmp_path, monkeypatch, moment, what, message):
    """Another program acts right before a system call of ours."""
    owner = Path if moment == "mkdir" else fcntl
    call = getattr(owner, moment)

    def after_the_other_run(*args: object) -> object:
        if moment == "mkdir" or (tmp_path / "out.part").exists():  # not at the lock of the parent
            monkeypatch.undo()
            what(tmp_path / "out", tmp_path / "out.part")
        return call(*args)

    monkeypatch.setattr(owner, moment, after_the_other_run)
    with pytest.raises(UserError, match=message), new_directory(tmp_path / "out"):
        pytest.fail("it went on")


ONE_OF_THREE = """
import sys
from pathlib import Path
from vocabkit.errors import UserError
from vocabkit.outputs import new_directory

print("ready", flush=True)
for line in sys.stdin:
    try:
        with new_directory(Path(line.strip())) as part:
            (part / "file").write_text("x", encoding="utf-8")
        print("made", flush=True)
    except UserError:
        print("refused", flush=True)
"""


def test_runs_that_begin_together_take_nothing_from_each_other(tmp_path):
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", ONE_OF_THREE]
    runs = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(3)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for number in range(300):
        for run in runs:
            run.stdin.write(f"{tmp_path / str(number)}\n")
            run.stdin.flush()
        assert "made\n" in [run.stdout.readline() for run in runs]
    assert [run.communicate(timeout=10)[1] for run in runs] == ["", "", ""], "a folder was taken away"
    assert len(names(tmp_path)) == 300


def test_a_full_disk_is_named_by_the_folder(tmp_path):
    """Writes to an open file fail without a name."""
    with pytest.raises(OSError) as caught, new_directory(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "out.part")


# Texts


@pytest.mark.parametrize(
    ("suffix", "opener"), [("", open), (".gz", gzip.open), (".xz", lzma.open), (".bz2", bz2.open)]
)
def test_texts_of_any_kind(tmp_path, suffix, opener):
    with opener(tmp_path / f"a.txt{suffix}", "wt", encoding="utf-8") as file:
        file.write("một\nhai\nba\n")
    assert list(read_texts([tmp_path / f"a.txt{suffix}"], lines_per_text=2)) == ["một\nhai\n", "ba\n"]
    with opener(tmp_path / f"b.jsonl{suffix}", "wt", encoding="utf-8") as file:
        file.write('{"text": "bốn\\nnăm", "id": 1}\n\n{"text": "sáu"}\n')
    assert list(read_texts([tmp_path / f"b.jsonl{suffix}"])) == ["bốn\nnăm", "sáu"]


def test_texts_of_a_folder_come_in_the_order_of_names(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.txt", "sub/c.txt", ".hidden"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert list(read_texts([tmp_path])) == ["a.txt", "b.txt", "sub/c.txt"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "a.txt is missing"),
        ("a.txt", b"ok\n\xff\n", "a.txt: not UTF-8 text near line"),
        ("a.txt.gz", b"no archive", "a.txt.gz: broken archive near line 1"),
        ("a.txt.gz", gzip.compress(os.urandom(9999).hex().encode())[:-900], "a.txt.gz: broken archive"),
        ("a.txt.xz", b"no archive", "a.txt.xz: broken archive"),
        ("a.txt.bz2", b"no archive", "a.txt.bz2: broken archive"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl:2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', 'a.jsonl:2 has no "text" string'),
        ("a.jsonl", b"[1]\n", 'a.jsonl:1 has no "text" string'),
    ],
)
def test_texts_that_cannot_be_read_name_file_and_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_texts([tmp_path / name]))


def test_an_empty_folder_of_texts_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no file"):
        list(read_texts([tmp_path]))


def test_bundled_texts_are_read():
    texts = list(read_texts([ROOT / "data" / "verify_texts.txt"]))
    assert len(texts) > 5 and json.dumps(texts, ensure_ascii=False).count("ệ") > 5
