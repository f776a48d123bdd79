"""vocabkit/corpus/records.py: what the text of a record is, which records are bad."""

import json

import pyarrow as pa
import pytest
from corpora import Read, as_csv, as_jsonl, as_parquet, put

from vocabkit.corpus.files import find_sources, read_blocks
from vocabkit.corpus.records import parse_rows
from vocabkit.errors import UserError

# Bad records


BAD_LINES = [
    (b'{"text": "m\xe1\xbb\x99t"}', None),
    (b'{"text": ', "not JSON: Expecting value (column 1"),
    (b"", "blank"),
    (b"[1]", "a list, expected an object"),
    (b"null", "null, expected an object"),
    (b'{"id": 1, "body": "x"}', 'no "text", "messages", "conversations" among its fields: "id", "body"'),
    (b"{}", 'no "text", "messages", "conversations" among its fields: it is empty'),
    (b'{"text": null}', '"text" is null, expected a string'),
    (b'{"text": 1.5}', '"text" is a number, expected a string'),
    (b'{"text": true}', '"text" is true or false, expected a string'),
    (b'{"text": {}}', '"text" is an object, expected a string'),
    (b'{"text": "\xe1\xbb"}', "not UTF-8 (byte 0xe1)"),
    (b'{"text": "\\ud83d"}', "holds half a character (lone surrogate \\ud83d)"),
    (b'{"text": "a\tb"}', "not JSON: Invalid control character at (column 12)"),
    (b'{"text": ""}', None),
    (b"[" * 200_000, "not JSON: maximum recursion depth exceeded"),
    (b"1" * 5000, "not JSON: Exceeds the limit"),
    (b'{"messages": [{"content": "x"}, {"role": "user"}]}', 'message 2 of "messages" has neither'),
    (b'{"messages": ["x"]}', 'message 1 of "messages" has neither "content" nor "value"'),
    (b'{"conversations": [{"value": 7}]}', 'message 1 of "conversations" is a number, expected a string'),
    (b'{"text": "cu\xe1\xbb\x91i"}', None),
]


@pytest.mark.parametrize("size", [None, 1, 60])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_bad_lines_are_dropped_and_named(tmp_path, size, line_end):
    data = line_end.join(line for line, _ in BAD_LINES)
    read = Read(put(tmp_path, "a.jsonl", data), size=size)
    assert read.texts == ["một", "", "cuối"]
    expected = [(n, why) for n, (_, why) in enumerate(BAD_LINES, 1) if why not in (None, "blank")]
    assert read.seen == len(expected) + 3
    assert len(read.bad) == len(expected)
    for line, (number, why) in zip(read.bad, expected, strict=True):
        assert line.startswith(f"{number}: {why}"), (line, why)


def test_a_bad_line_of_a_text_is_dropped_and_weighs_as_a_line(tmp_path):
    lines = [b"m\xe1\xbb\x99t\n", b"x\xff\n", b"hai\n", b"\xe1\xbb"]
    read = Read(put(tmp_path, "a.txt", b"".join(lines)))
    assert (read.texts, read.seen) == (["một\nhai\n"], 4)
    assert read.bad == ["2: not UTF-8 (byte 0xff)", "4: not UTF-8 (byte 0xe1)"]
    read = Read(put(tmp_path, "a.txt", b"".join(lines)), size=1)
    assert (read.texts, read.seen) == (["một\n", "hai\n"], 4)
    assert read.bad == ["2: not UTF-8 (byte 0xff)", "4: not UTF-8 (byte 0xe1)"]


def test_bad_rows_of_tables_are_numbered_by_line(tmp_path):
    data = b'id,text\n1,"a\nb"\n2\n\n3,\xff\n\xff,ok\n4,"d" e\n5,x\ry\n6,f\n7,"open\n8,x\n'
    for size in (None, 1):
        read = Read(put(tmp_path, "a.csv", data), size=size)
        assert read.texts == ["a\nb", "ok", "d e", "f"]
        assert (read.seen, read.bad[:2]) == (
            8,
            ["4: has 1 cells, the text is expected in cell 2", "6: not UTF-8 (byte 0xff)"],
        )
        assert read.bad[2].startswith("9: not CSV: new-line character seen in unquoted field")
        assert read.bad[3:] == ["11: a quote that opens here is never closed"]


def test_bad_rows_of_json_and_parquet_are_numbered_by_row(tmp_path):
    read = Read(
        put(tmp_path, "a.json", b'[{"text": "a"}, 7,\n{"text": "\xff"},{"text":"b"},{"x":1}]'), size=1
    )
    assert (read.texts, read.seen) == (["a", "b"], 5)
    none = '5: no "text", "messages", "conversations" among its fields: "x"'
    assert read.bad == ["2: a number, expected an object", "3: not UTF-8 (byte 0xff)", none]
    column = pa.array([b"a", None, b"\xff", b"b"]).cast(pa.binary())
    column = pa.Array.from_buffers(pa.string(), 4, column.buffers())
    read = Read(put(tmp_path, "a.parquet", as_parquet({"text": column})), size=1)
    assert (read.texts, read.seen) == (["a", "b"], 4)
    assert read.bad == ['2: "text" is null, expected a string', "3: not UTF-8 (byte 0xff)"]


def test_text_field(tmp_path):
    rows = [{"text": "no", "body": "một"}, {"text": "no"}, {"body": [{"role": "user", "content": "hai"}]}]
    for kind, data in (("jsonl", as_jsonl(rows)), ("json", json.dumps(rows).encode())):
        read = Read(put(tmp_path, f"a.{kind}", data), text_field="body")
        assert read.texts == ["một", "hai"]
        assert read.bad == ['2: no "body" among its fields: "text"']
    table = as_csv([["text", "body"], ["no", "một"]])
    assert Read(put(tmp_path, "a.csv", table), text_field="body").texts == ["một"]
    table = as_csv([["text", "body"], ["no", "một"]], "\t")
    assert Read(put(tmp_path, "a.tsv", table), text_field="body").texts == ["một"]
    table = as_parquet({"text": ["no"], "body": ["một"]})
    assert Read(put(tmp_path, "a.parquet", table), text_field="body").texts == ["một"]


CHATS = [
    {"messages": [{"role": "user", "content": "Chào"}, {"role": "assistant", "content": "Vâng"}]},
    {"text": None, "conversations": [{"from": "human", "value": "Ai?"}, {"from": "gpt", "value": "Tôi"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Xem"}, {"type": "image"}]}]},
    {
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "3"},
        ]
    },
    {"text": None, "conversations": "Một chuỗi"},
]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_chats_are_joined(tmp_path, kind):
    data = as_jsonl(CHATS) if kind == "jsonl" else json.dumps(CHATS).encode()
    read = Read(put(tmp_path, f"a.{kind}", data))
    assert (read.texts, read.bad) == (["Chào\nVâng", "Ai?\nTôi", "Xem", "3", "Một chuỗi"], [])


def test_chats_in_parquet(tmp_path):
    chats = [CHATS[0]["messages"], CHATS[0]["messages"][:1], []]
    read = Read(put(tmp_path, "a.parquet", as_parquet({"id": [1, 2, 3], "messages": chats})))
    assert (read.texts, read.bad) == (["Chào\nVâng", "Chào", ""], [])


def test_a_tsv_without_header_is_read_cell_by_cell(tmp_path):
    data = 'Hi "there\tChào\r\n\n"Yes\tVâng\tDạ\nNo\xa0\tKh\xf4ng'.encode()
    path = put(tmp_path, "a.tsv", data)
    for size in (None, 1):
        read = Read(path, size=size)
        assert read.texts == ['Hi "there', "Chào", '"Yes', "Vâng", "Dạ", "No\xa0", "Không"]
        assert (read.seen, read.bad) == (3, [])
        assert read.notes == [f'{path} has no column "text" in its first line: every cell is read as a text']
    bad = Read(put(tmp_path, "b.tsv", b"a\tb\n\xff\tc\n"))
    assert (bad.texts, bad.seen, bad.bad) == (["a", "b"], 2, ["2: not UTF-8 (byte 0xff)"])


# Records as they are, for training


def records(path: str, **options: object) -> tuple[list, list[str]]:
    (source,) = find_sources([path])
    parsed = [parse_rows(block) for block in read_blocks(source, text_field=None, notes=print, **options)]
    return [row for rows, _, _ in parsed for row in rows], [line for _, _, bad in parsed for line in bad]


@pytest.mark.parametrize(
    ("name", "data", "rows", "bad"),
    [
        ("a.jsonl", b'{"en": 1, "x": 2}\n\n[3]\nno\n', {1: {"en": 1, "x": 2}, 3: [3]}, [":4: not JSON"]),
        ("a.json", b'[{"en": 1, "x": 2}, {"x": 3}]', {1: {"en": 1, "x": 2}, 2: {"x": 3}}, []),
        ("a.tsv", b"a\tb\n\xff\nc\td\n", {1: ["a", "b"], 3: ["c", "d"]}, [":2: not UTF-8"]),
        ("a.csv", b"id,text\n1,a\n2\n", {2: {"text": "a"}}, [":3: has 1 cells"]),
        ("a.txt", "một\nhai\n".encode(), {1: {"text": "một\nhai\n"}}, []),
        ("a.parquet", as_parquet({"x": [1], "en": ["a"], "vi": ["b"]}), {1: {"en": b"a", "vi": b"b"}}, []),
    ],
)
def test_records(tmp_path, name, data, rows, bad):
    path = put(tmp_path, name, data)
    found, reasons = records(str(path), columns=("text", "en", "vi"))
    assert found == [(f"{path}:{number}", row) for number, row in rows.items()]
    assert len(reasons) == len(bad) and all(f"{path}{b}" in r for b, r in zip(bad, reasons, strict=True))


def test_records_of_a_table_without_any_of_the_columns(tmp_path):
    path = put(tmp_path, "a.parquet", as_parquet({"x": [1]}))
    with pytest.raises(UserError, match='has no column "text", "messages", "conversations", it has "x"'):
        records(str(path), columns=("en", "vi"))
