"""GGUF files read and written byte for byte, split ones put together, broken ones refused."""

import struct

import gguf
import pytest
from exporting import rewrite, split_in_two

from vocabkit.errors import UserError
from vocabkit.gguf.files import INT32, STRING, UINT32, array, field, number, read_gguf, split_files, string
from vocabkit.gguf.model import open_gguf


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
        "names": (data[:24] + b"\xff" * 200 + data[224:], "header needs|is not UTF-8|truncated"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_gguf(path)
    with pytest.raises(UserError, match="is missing"):
        read_gguf(tmp_path / "none.gguf")


def test_a_layout_that_llama_cpp_refuses_is_refused(small, tmp_path):
    """Each would give a file that no program opens, or one with the rows of another tensor."""
    base = read_gguf(small / "base.gguf")
    data = (small / "base.gguf").read_bytes()
    start = min(tensor.start for tensor in base.tensors.values())

    def made(tensors, *, fields=None, body=data[start:], alignment=base.alignment) -> bytes:
        fields = list((base.fields if fields is None else fields).items())
        head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
        for key, value in fields:
            head += string(key).data + struct.pack("<I", value.type) + value.data
        for name, dims, kind, offset in tensors:
            head += string(name).data + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
            head += struct.pack("<IQ", kind, offset)
        return head + bytes(-len(head) % alignment) + body

    whole = [(t.name, t.dims, t.type, t.start - start) for t in base.tensors.values()]
    first, *others = whole
    name, dims, kind, offset = first
    last = whole[-1]
    cases = {
        "at one place": ([(n, d, k, 0) for n, d, k, _ in whole], "starts at byte"),
        "a byte later": ([(name, dims, kind, offset + 1), *others], "starts at byte"),
        "inside another": ([first, (*others[0][:3], 32), *others[1:]], "starts at byte"),
        "twice": ([*whole, first], f"'{name}' is there twice"),
        "half as large": ([*whole[:-1], (last[0], (1,), last[2], last[3])], "its header describes"),
        "larger": ([*whole[:-1], (last[0], (1 << 40,), last[2], last[3])], "truncated"),
        "of type 999": ([(name, dims, 999, 0), *others], "has type 999"),
        "of no rows": ([(name, (dims[0], 0), kind, 0), *others], "and dimensions"),
        "of five dimensions": ([(name, (1, 1, 1, *dims), kind, 0), *others], "and dimensions"),
    }
    path = tmp_path / "m.gguf"
    path.write_bytes(made(whole))
    assert read_gguf(path).tensors.keys() == base.tensors.keys()
    for name, (tensors, message) in cases.items():
        path.write_bytes(made(tensors))
        with pytest.raises(UserError, match=message):
            print(name, read_gguf(path))
    path.write_bytes(made([], body=b""))
    with pytest.raises(UserError, match="has no tensor token_embd.weight"):
        open_gguf(path)
    path.write_bytes(made([("x", *first[1:]), *others]))
    with pytest.raises(UserError, match="has no tensor token_embd.weight"):
        open_gguf(path)
    for alignment in (number(0, type=UINT32), number(24, type=UINT32), string("32")):
        path.write_bytes(made(whole, fields=base.fields | {"general.alignment": alignment}))
        with pytest.raises(UserError, match="expected a power of two"):
            read_gguf(path)
    path.write_bytes(data[:16] + struct.pack("<Q", len(base.fields) + 1) + string("general.name").data
                     + struct.pack("<I", 8) + string("x").data + data[24:])  # fmt: skip
    with pytest.raises(UserError, match="'general.name' is there twice"):
        read_gguf(path)
    path.write_bytes(data[:24] + string("a").data + struct.pack("<IIQ", 9, 8, 1 << 60) + data[24:])
    with pytest.raises(UserError, match="truncated"):
        read_gguf(path)


def test_a_part_that_is_missing(small, tmp_path):
    first = split_in_two(small / "base.gguf", tmp_path / "m")
    assert split_files(first) == [first, tmp_path / "m-00002-of-00002.gguf"]
    assert split_files(small / "base.gguf") == [small / "base.gguf"]
    first.with_name("m-00002-of-00002.gguf").unlink()
    with pytest.raises(UserError, match="m-00002-of-00002.gguf is missing"):
        split_files(first)
