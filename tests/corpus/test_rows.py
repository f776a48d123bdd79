"""vocabkit/corpus/rows.py: rows of .json, .parquet and hub data sets, one after another."""

import json
import os

import pytest
from corpora import TEXTS, Read, as_parquet, put
from hypothesis import given
from hypothesis import strategies as st

from vocabkit.corpus import files, streams
from vocabkit.errors import UserError

# .json


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(JSON_VALUES, max_size=6),
    st.integers(1, 50),
    st.sampled_from([None, 0, 3]),
    st.booleans(),
    st.text(" \n\t\r", max_size=20),
)
def test_arrays_are_read_piece_by_piece(tmp_path_factory, rows, piece, indent, ascii_only, space):
    text = space + json.dumps(rows, indent=indent, ensure_ascii=ascii_only) + space
    path = put(tmp_path_factory.mktemp("json"), "a.json", text.encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "PIECE", piece)
        patch.setattr(files, "_needed", lambda row, fields: row)
        read = Read(path, size=1)
    assert [row for block in read.blocks for row in block.data] == rows
    assert [block.end for block in read.blocks] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("data", "kind", "texts"),
    [
        (b'{"text": "a"}', "jsonl", ["a"]),
        (b'\n {"text":\n "a"}\n', "json", ["a"]),
        (b'{"text": "a"}\n{"text": "b"}\n', "jsonl", ["a", "b"]),
        (b'{"text": "a"\n}\n{"text": "b"} {"text": "c"}\n', "json", ["a", "b", "c"]),
        (b"[]", "json", []),
        (b' [ {"text": "a"} , ] ', "json", ["a"]),
    ],
)
def test_json_that_is_no_array(tmp_path, data, kind, texts):
    read = Read(put(tmp_path, "a.json", data))
    assert read.texts == texts and read.bad == []
    assert {block.kind for block in read.blocks} <= {kind}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"text": "a"},\n{"text": x}]', r"a.json:2 is not JSON: Expecting value; mend the file"),
        (b'[\n\n{"text": x},' + b'{"text": "a"},' * 9, "a.json:3 is not JSON: Expecting value"),
        (b'[{"text": "a"},\n{"text": "b', "a.json:2 is not JSON: Unterminated string"),
        (b'[{"text": "a"},\n', "a.json:2 is not JSON: the array is never closed"),
        (b'[{"text": "a"}\n{"text": "b"}]', 'a.json:2 is not JSON: expected "," or "]"'),
        (b'[{"text": "a"}]\n[]', "a.json:2 is not JSON: something follows the array"),
        (b"[" * 200_000, "a.json:1 is not JSON: maximum recursion"),
        (b"[\n" + b"1" * 5000 + b"]", "a.json:2 is not JSON: Exceeds the limit"),
        (b"text", "a.json:1 is not JSON: Expecting value"),
    ],
)
def test_broken_json_is_an_error_with_its_line(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        Read(put(tmp_path, "a.json", data), size=1)


def test_hub_data_sets_are_streamed_and_gone_on_with(hub):
    whole = Read(hub, size=200)
    assert (whole.texts, whole.bad, whole.seen) == (TEXTS * 3, [], 18)
    assert len(whole.blocks) > 2 and whole.blocks[-1].end == 18
    for number, block in enumerate(whole.blocks, 1):
        assert Read(hub, size=200, start=block.end).blocks == whole.blocks[number:]
    assert Read(f"{hub}:default").texts == TEXTS * 3
    assert {tuple(row) for block in whole.blocks for row in block.data} == {("text",)}
    assert Read(f"{hub}::test").texts == Read(f"{hub}:default:test").texts == ["test", "đề"]


def test_hub_data_sets_of_unknown_columns(hub, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.IterableDataset, "column_names", None)
    whole = Read(hub)
    assert whole.texts == TEXTS * 3
    assert {tuple(row) for block in whole.blocks for row in block.data} == {("text",)}
    rows = Read(hub, text_field="body").bad
    assert rows[0] == '1: no "body" among its fields: "id", "text"' and len(rows) == 18


@pytest.mark.parametrize(
    ("suffix", "text_field", "message"),
    [
        (":none", None, "cannot be read: .*; check name, configuration and split"),
        ("::none", None, "cannot be read: .*; check name, configuration and split"),
        ("/gone", None, "cannot be read: .*; check name, configuration and split"),
        ("", "body", 'has no column "body", it has "id", "text"; name the right one with --text_field'),
    ],
)
def test_hub_data_sets_that_cannot_be_read(hub, suffix, text_field, message):
    with pytest.raises(UserError, match=message):
        Read(hub + suffix, text_field=text_field)


def test_damaged_pages_of_parquet_are_an_error(tmp_path):
    data = bytearray(as_parquet({"text": [os.urandom(99).hex() for _ in range(999)]}))
    data[50:2000] = b"\xff" * 1950
    with pytest.raises(UserError, match="a.parquet cannot be read as parquet"):
        Read(put(tmp_path, "a.parquet", bytes(data)))
