"""GGUF files read and written byte for byte, split ones put together, broken ones refused."""

import gguf
import pytest
from exporting import rewrite, split_in_two

from vocabkit.errors import UserError
from vocabkit.gguf.files import INT32, STRING, array, field, number, read_gguf, split_files, string


def test_a_file_written_again_is_the_same(small, tmp_path):
    out = rewrite(small / "base.gguf", tmp_path / "again.gguf", {})
    assert out.read_bytes() == (small / "base.gguf").read_bytes()


def test_the_gguf_package_reads_what_was_written(small):
    """Every field and every tensor, as the reader of llama.cpp's authors sees them."""
    ours, theirs = read_gguf(small / "base.gguf"), gguf.GGUFReader(small / "base.gguf")
    theirs_by_key = {key: each for key, each in theirs.fields.items() if not key.startswith("GGUF.")}
    assert list(ours.fields) == list(theirs_by_key)
    for key, own in ours.fields.items():
        assert own.value() == theirs_by_key[key].contents(), key
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor, other in zip(ours.tensors.values(), theirs.tensors, strict=True):
        assert (tensor.type, tensor.start, tensor.size) == (
            other.tensor_type, other.data_offset, other.n_bytes,
        )  # fmt: skip
        assert list(tensor.dims) == other.shape.tolist()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, number(1, type=7)),
        (3, number(3, type=4)),
        (0.5, number(0.5, type=6)),
        ("việt", string("việt")),
        (["a", "việt"], array(["a", "việt"], items=STRING)),
        ([1, -2], array([1, -2], items=INT32)),
        ([1.0, -2.5], array([1.0, -2.5], items=6)),
    ],
    ids=str,
)
def test_a_value_gets_the_type_of_the_stock_converter(value, expected):
    assert field(value) == expected
    assert field(value).value() == value


def test_bytes_that_are_no_utf8_pass():
    odd = b"\xe1\xbb".decode("utf-8", "surrogateescape")
    assert string(odd).value() == odd and string(odd).data.endswith(b"\xe1\xbb")


def test_broken_files_are_refused(small, tmp_path):
    data = (small / "base.gguf").read_bytes()
    cases = {
        "short": (data[:200], "truncated"),
        "cut": (data[:-300], "truncated"),
        "magic": (b"GGML" + data[4:], "expected b'GGUF'"),
        "version": (data[:4] + b"\x09" + data[5:], "expected b'GGUF' version 2 or 3"),
        "names": (data[:24] + b"\xff" * 200 + data[224:], "truncated|no valid GGUF header"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_gguf(path)
    with pytest.raises(UserError, match="is missing"):
        read_gguf(tmp_path / "none.gguf")


def test_a_part_that_is_missing(small, tmp_path):
    first = split_in_two(small / "base.gguf", tmp_path / "m")
    assert split_files(first) == [first, tmp_path / "m-00002-of-00002.gguf"]
    assert split_files(small / "base.gguf") == [small / "base.gguf"]
    first.with_name("m-00002-of-00002.gguf").unlink()
    with pytest.raises(UserError, match="m-00002-of-00002.gguf is missing"):
        split_files(first)
