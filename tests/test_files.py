"""vocabkit/files.py: JSON with clear errors, copies, lines of JSON."""

import bz2
import errno
import gzip
import hashlib
import lzma
import os
from pathlib import Path

import pytest

from vocabkit import files
from vocabkit.errors import UserError
from vocabkit.files import (
    copy_file,
    copy_range,
    read_json,
    read_json_object,
    read_jsonl,
    read_versioned,
    sha256_file,
    write_json,
    write_jsonl,
)

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


# Lines


PACK = {"": open, ".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


@pytest.mark.parametrize("suffix", PACK)
def test_lines_of_json_come_with_their_place(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    with PACK[suffix](path, "wt", encoding="utf-8") as file:
        file.write('{"a": "chữ\u2028"}\n\n[1]\n')
    assert list(read_jsonl(path)) == [(f"{path}:1", {"a": "chữ\u2028"}), (f"{path}:3", [1])]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", None, "a.jsonl is missing"),
        ("a.jsonl", b"1\n\xff\n", "a.jsonl is not UTF-8 text near line"),
        ("a.jsonl", b'1\n{"text": \n', "a.jsonl:2 is not JSON: Expecting value; mend or remove the line"),
        ("a.jsonl.gz", b"no archive", "a.jsonl.gz: broken archive near line 1"),
        ("a.jsonl.gz", gzip.compress(b"1234567\n" * 9999)[:-30], "a.jsonl.gz: broken archive near line"),
        ("a.jsonl.xz", b"no archive", "a.jsonl.xz: broken archive"),
        ("a.jsonl.bz2", b"no archive", "a.jsonl.bz2: broken archive"),
    ],
)
def test_lines_that_cannot_be_read_name_file_and_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_jsonl(tmp_path / name))


def test_rows_are_written_whole_and_compressed_by_name(tmp_path):
    rows = [{"word": "thời▁gian"}, ["🙂", 1]]
    for name in ("a.jsonl", "a.jsonl.xz"):
        write_jsonl(tmp_path / name, rows)
        assert [row for _, row in read_jsonl(tmp_path / name)] == rows
        with pytest.raises(UserError, match=f"{name} already exists"):
            write_jsonl(tmp_path / name, rows)
    raw = (tmp_path / "a.jsonl").read_bytes()
    assert raw == '{"word": "thời▁gian"}\n["🙂", 1]\n'.encode()
    assert lzma.decompress((tmp_path / "a.jsonl.xz").read_bytes()) == raw
