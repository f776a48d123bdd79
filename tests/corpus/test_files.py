"""vocabkit/corpus/files.py and its three parts: texts of every kind, blocks to go on from, what is bad,
what breaks off.
"""

import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import os
import pickle
import random
import struct
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from vocabkit.corpus import files, streams
from vocabkit.corpus import rows as corpus_rows
from vocabkit.corpus.files import Block, Source, find_sources, identity, parse_block, parse_rows, read_blocks
from vocabkit.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PACK = {
    "": bytes,
    ".xz": functools.partial(lzma.compress, preset=0),
    ".gz": gzip.compress,
    ".bz2": functools.partial(bz2.compress, compresslevel=1),  # blocks of 100 kB: half a file is some of them
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,  # as the command does
}
TEXTS = [
    "Tiếng Việt có sáu thanh.",
    "",
    'hai dòng\nvà "ngoặc kép", dấu phẩy\n\n',
    "\u2028 strange\x85 line\x0b ends \r\n 🙂",
    "a" * 300,
    'kết, thúc"',
]
DECOMPOSED = unicodedata.normalize("NFD", "Tiếng Việt")


def as_csv(rows: list[list[str]], delimiter: str = ",", **options: object) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, **{"lineterminator": "\n", **options}).writerows(rows)
    return out.getvalue().encode()


def as_jsonl(rows: list[object]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(rows: dict[str, object], **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(rows), out, **options)
    return out.getvalue()


def written(texts: list[str], kind: str) -> bytes:
    """A file of this kind with these texts, among other fields."""
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    if kind == "txt":
        return "\n".join(texts).encode()
    if kind == "jsonl":
        return as_jsonl(rows)
    if kind == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1).encode()
    if kind == "parquet":
        return as_parquet({"id": list(range(len(texts))), "text": texts}, row_group_size=4)
    table = [["id", "text"], *([str(row["id"]), row["text"]] for row in rows)]
    return as_csv(table, "," if kind == "csv" else "\t")


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class Read:
    """All that one source gives."""

    def __init__(
        self, given: Path | str, *, text_field: str | None = None, start: int = 0, size: int | None = None
    ):
        self.notes: list[str] = []
        [source] = find_sources([str(given)], notes=self.notes.append)
        self.blocks: list[Block] = list(
            read_blocks(source, start=start, text_field=text_field, block_bytes=size, notes=self.notes.append)
        )
        parsed = [parse_block(pickle.loads(pickle.dumps(b)), text_field=text_field) for b in self.blocks]
        self.texts = [text for texts, _, _ in parsed for text in texts]
        self.seen = sum(seen for _, seen, _ in parsed)
        self.bad = [line.removeprefix(f"{source.name}:") for _, _, bad in parsed for line in bad]


# Every kind


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "csv", "tsv"])
def test_texts_come_back_from_every_kind(tmp_path, kind, ending):
    path = put(tmp_path, f"a.{kind}{ending}", PACK[ending](written(TEXTS, kind)))
    read = Read(path)
    assert read.texts == (["\n".join(TEXTS)] if kind == "txt" else TEXTS)
    assert read.seen == (written(TEXTS, kind).count(b"\n") + 1 if kind == "txt" else len(TEXTS))
    assert read.bad == read.notes == []
    assert read.blocks[-1].bytes_read == path.stat().st_size


def test_texts_come_back_from_parquet(tmp_path):
    path = put(tmp_path, "a.parquet", written(TEXTS, "parquet"))
    read = Read(path)
    assert (read.texts, read.seen, read.bad) == (TEXTS, len(TEXTS), [])
    assert read.blocks[-1].bytes_read == path.stat().st_size


@pytest.mark.parametrize("size", [1, 40, 1000])
@pytest.mark.parametrize(
    "name", ["txt", "txt.gz", "jsonl", "jsonl.xz", "json", "csv", "csv.zst", "tsv", "parquet"]
)
def test_reading_on_from_any_block_gives_the_blocks_that_followed(tmp_path, name, size):
    kind, _, ending = name.partition(".")
    texts = random.Random(size).choices(TEXTS, k=30)
    data = written(texts, kind)
    path = put(tmp_path, f"a.{name}", PACK["." + ending if ending else ""](data))
    whole = Read(path, size=size)
    assert "".join(whole.texts) == ("\n" if kind == "txt" else "").join(texts)
    assert len(whole.blocks) > 1
    for number, block in enumerate(whole.blocks, 1):
        rest = Read(path, size=size, start=block.end)
        assert [b.data for b in rest.blocks] == [b.data for b in whole.blocks[number:]]
        assert [(b.first, b.end) for b in rest.blocks] == [(b.first, b.end) for b in whole.blocks[number:]]
    read = [block.bytes_read for block in whole.blocks]
    assert read == sorted(read)


def test_every_text_is_composed(tmp_path):
    for kind in ("txt", "jsonl", "json", "csv", "tsv", "parquet"):
        read = Read(put(tmp_path, f"a.{kind}", written([DECOMPOSED], kind)))
        assert read.texts == ["Tiếng Việt"], kind


@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "csv", "tsv"])
def test_a_byte_order_mark_is_no_text(tmp_path, kind):
    path = put(tmp_path, f"a.{kind}", b"\xef\xbb\xbf" + written(["một", "hai"], kind))
    read = Read(path, size=5)
    assert "".join(read.texts).replace("\n", "") == "mộthai" and read.bad == []
    assert Read(path, size=5, start=read.blocks[0].end).texts == read.texts[1:]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "csv", "tsv"])
def test_empty_files_hold_nothing(tmp_path, kind):
    read = Read(put(tmp_path, f"a.{kind}", b""))
    assert (read.blocks, read.notes) == ([], [])


def test_files_can_be_read_by_several_threads(tmp_path):
    paths = [put(tmp_path, f"{n}.csv.xz", lzma.compress(written(TEXTS * 50, "csv"))) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert all(read.texts == TEXTS * 50 for read in pool.map(lambda p: Read(p, size=500), paths))


# .txt


def test_a_text_is_one_document_with_its_line_ends(tmp_path):
    text = "\r\n  một\r\n\r\n\t hai \n\n"
    assert Read(put(tmp_path, "a.txt", text.encode())).texts == [text]


def test_long_texts_are_cut_where_no_white_space_is_cut(tmp_path):
    text = "một hai\n\nba\n  bốn\n\u3000năm\n\x85sáu\n\u2028bảy\ntám"
    read = Read(put(tmp_path, "a.txt", text.encode()), size=2)
    assert read.texts == ["một hai\n\n", "ba\n  bốn\n\u3000năm\n\x85sáu\n\u2028bảy\n", "tám"]
    assert [block.first for block in read.blocks] == [1, 3, 8]
    assert len(Read(put(tmp_path, "b.txt", b"1234567\n90\n"), size=8).texts) == 2, "longer than 8 bytes"
    assert len(Read(put(tmp_path, "b.txt", b"12345678\n0\n"), size=8).texts) == 2
    assert len(Read(put(tmp_path, "b.txt", b"1234567\n"), size=8).texts) == 1


def test_a_text_without_a_good_place_is_cut_at_its_last_line_end_or_a_whole_character(tmp_path):
    spaces = ("a" * 20 + "\n ") * 3
    read = Read(put(tmp_path, "a.txt", spaces.encode()), size=2)  # searched for 64 bytes
    assert read.texts == [spaces[:43], spaces[43:]]
    read = Read(put(tmp_path, "a.txt", ("ệ" * 100).encode()), size=1)
    assert [len(text) for text in read.texts] == [10] * 10, "32 bytes hold 10 characters of 3 bytes"
    assert {block.first for block in read.blocks} == {1}
    read = Read(put(tmp_path, "a.txt", ("a" + "🙂" * 20).encode()), size=1)
    assert [len(text) for text in read.texts] == [8, 8, 5] and read.bad == []


def documents_of(raw: bytes, size: int) -> list[bytes]:
    """What the rule for .txt says, tried place by place."""
    found = []
    while raw:
        reach = 32 * size
        ends = [at for at in range(1, len(raw)) if raw[at - 1 : at] == b"\n"]
        good = [at for at in ends if size <= at <= reach and not raw[at:].decode()[0].isspace()]
        if good:
            end = good[0]
        elif len(raw) <= reach:
            end = len(raw)
        else:
            end = max([at for at in ends if at <= reach], default=0)
            end = end or max(at for at in range(reach + 1) if raw[at] & 0xC0 != 0x80)
        found.append(raw[:end])
        raw = raw[end:]
    return found


@given(
    st.text(st.sampled_from("aaaệ\n\n\r \u2028\u3000\x85🙂\xa0\u1680"), max_size=200),
    st.integers(1, 9),
    st.integers(1, 20),
)
def test_texts_are_cut_by_their_content_alone(tmp_path_factory, text, size, piece):
    path = put(tmp_path_factory.mktemp("txt"), "a.txt", text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "PIECE", piece)
        read = Read(path, size=size)
    assert [block.data for block in read.blocks] == documents_of(text.encode(), size)
    assert "".join(read.texts) == text and read.bad == []


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


# .csv and .tsv


@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from('ab,"\n\t\r '), max_size=6),
            st.text(st.sampled_from('x,"\n\t"'), max_size=9),
        ),
        max_size=12,
    ),
    st.integers(1, 60),
    st.integers(1, 20),
    st.sampled_from([",", "\t"]),
    st.booleans(),
)
def test_quoted_line_ends_survive_any_cut(tmp_path_factory, rows, size, piece, delimiter, unix):
    # Before 3.13 the writer leaves \r unquoted if lines end with \n; no reader takes that.
    style = {"quoting": csv.QUOTE_ALL} if unix else {"lineterminator": "\r\n"}
    data = as_csv([["other", "text"], *map(list, rows)], delimiter, **style)
    path = put(tmp_path_factory.mktemp("csv"), "a.csv" if delimiter == "," else "a.tsv", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "PIECE", piece)
        read = Read(path, size=size)
    assert (read.texts, read.bad) == ([text for _, text in rows], [])
    if rows:
        middle = read.blocks[len(read.blocks) // 2]
        rest = Read(path, size=size, start=middle.end)
        assert read.texts[len(read.texts) - len(rest.texts) :] == rest.texts


@given(st.text(st.sampled_from('a,"\n'), max_size=60), st.integers(1, 20))
def test_sloppy_quotes_mean_what_the_csv_module_says(tmp_path_factory, text, size):
    path = put(tmp_path_factory.mktemp("csv"), "a.csv", b"text\n" + text.encode())
    rows = csv.reader(io.StringIO(text, newline="\n"))
    expected = [row[0] for row in rows if row]
    read = Read(path, size=size)
    never_closed = [line for line in read.bad if "never closed" in line]
    assert read.texts == expected[: len(expected) - len(never_closed)] and read.bad == never_closed


def test_one_quote_in_the_middle_of_a_cell_opens_nothing(tmp_path):
    data = b'text,n\na 5" pipe,1\n' + b"x,2\n" * 100
    read = Read(put(tmp_path, "a.csv", data), size=20)
    assert read.texts == ['a 5" pipe'] + ["x"] * 100 and len(read.blocks) > 10


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


def test_a_long_cell_is_read_whole(tmp_path):
    text = "một hai\n" * 50_000
    read = Read(put(tmp_path, "a.csv", as_csv([["text"], [text], ["x"]])), size=1000)
    assert read.texts == [text, "x"]


def test_line_ends_of_unicode_end_no_row(tmp_path):
    table = as_csv([["text", "n"], ["a\u2028b\x85c", "1"], ["d", "2"]])
    assert Read(put(tmp_path, "a.csv", table)).texts == ["a\u2028b\x85c", "d"]


# Archives that break off


LINES = [f"{number} {os.urandom(9).hex()}\n" for number in range(30_000)]


@pytest.mark.parametrize("ending", list(PACK)[1:])
def test_a_truncated_archive_gives_what_it_holds(tmp_path, ending):
    raw = "".join(LINES).encode()
    packed = PACK[ending](raw)
    path = put(tmp_path, f"a.txt{ending}", packed[: len(packed) // 2])
    read = Read(path)
    text = "".join(read.texts)
    assert raw.decode().startswith(text) and len(text) > 100_000
    size = f"{len(text):,} bytes of text"
    assert read.notes == [f"{path} ends early (truncated {ending}): counted what it holds, {size}"]
    assert read.blocks == [] or Read(path, start=read.blocks[-1].end).notes == read.notes
    assert Read(put(tmp_path, f"b.txt{ending}", b"")).notes[0].endswith("holds, 0 bytes of text")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "json"])
def test_an_unfinished_row_of_a_truncated_archive_is_dropped(tmp_path, kind):
    packed = gzip.compress(written(LINES, kind))
    for size in (None, 1000):
        read = Read(put(tmp_path, f"a.{kind}.gz", packed[: len(packed) // 2]), size=size)
        assert len(read.notes) == 1 and read.bad == []
        assert len(read.texts) > 10_000 and read.texts == LINES[: len(read.texts)]


def test_a_truncated_text_ends_with_a_whole_character(tmp_path):
    packed = gzip.compress(("a" + "ệ" * 50_000).encode(), compresslevel=0)
    for cut in (70_000, 70_001, 70_002):
        read = Read(put(tmp_path, "a.txt.gz", packed[:cut]))
        assert read.bad == [] and set(read.texts[0]) == {"a", "ệ"} and len(read.notes) == 1


@pytest.mark.parametrize("ending", list(PACK)[1:])
def test_a_damaged_archive_gives_what_comes_before(tmp_path, ending):
    raw = as_jsonl([{"text": os.urandom(300).hex()} for _ in range(1500)])
    packed = bytearray(PACK[ending](raw))
    middle = len(packed) * 3 // 4
    packed[middle : middle + 400] = b"\xff" * 400
    path = put(tmp_path, f"a.jsonl{ending}", bytes(packed))
    read = Read(path)
    assert len(read.notes) == 1 and f"{path} is damaged (corrupt {ending}): counted what" in read.notes[0]
    good = [json.loads(line)["text"] for line in raw.splitlines()]
    assert len(read.texts) > 700 and read.texts[:700] == good[:700]


def test_damage_found_only_by_a_checksum_is_reported(tmp_path):
    packed = gzip.compress(b"one\ntwo\n")
    read = Read(put(tmp_path, "a.txt.gz", packed[:-8] + b"\0" * 8))
    assert "is damaged (corrupt .gz): counted what comes before, 0 bytes of text" in read.notes[0]


@pytest.mark.parametrize("ending", list(PACK)[1:])
def test_archives_of_several_streams(tmp_path, ending, monkeypatch):
    parts = [PACK[ending](text.encode()) for text in ("một\n", "", "hai\n")]
    for piece in (1, 7, 1 << 20):
        monkeypatch.setattr(streams, "ARCHIVE_PIECE", piece if piece > 6 else 7)
        assert Read(put(tmp_path, f"a.txt{ending}", b"".join(parts))).texts == ["một\nhai\n"]
    if ending in (".gz", ".xz"):
        read = Read(put(tmp_path, f"a.txt{ending}", (b"\0" * 16).join(parts) + b"\0" * 4))
        assert (read.texts, read.notes) == (["một\nhai\n"], [])
    read = Read(put(tmp_path, f"a.txt{ending}", b"".join(parts) + b"rubbish" * 9))
    assert read.texts == ["một\nhai\n"] and "damaged" in read.notes[0]


def test_zst_with_a_skippable_frame_and_a_large_window(tmp_path):
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 3) + b"abc"
    window = zstandard.ZstdCompressionParameters.from_level(1, window_log=30)
    compressor = zstandard.ZstdCompressor(compression_params=window).compressobj()
    frame = compressor.compress(b"xa" * 9) + compressor.flush()
    assert Read(put(tmp_path, "a.txt.zst", skippable + frame)).texts == ["xa" * 9]


# Standard input


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b'\n {"text": "a"}\n{"text": "b"}', ["a", "b"]),
        (b'\xef\xbb\xbf{"text": "a"}', ["a"]),
        (b"\n a {\n", ["\n a {\n"]),
        (b"", []),
        (b"  ", ["  "]),
    ],
)
def test_standard_input_is_text_or_json_lines(monkeypatch, data, texts):
    pipe = io.BytesIO(data)
    pipe.seekable = lambda: False
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
    read = Read("-")
    assert read.texts == texts and {block.bytes_read for block in read.blocks} <= {0}


def test_bad_lines_of_standard_input_are_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n{')))
    assert Read("-", size=1).bad[0].startswith("2: not JSON")


# Hub data sets


@pytest.fixture
def hub(tmp_path, monkeypatch) -> str:
    """A data set in a folder: load_dataset takes its path as a name."""
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    # The environment is read once, at import, and other tests may need the network settings as they are.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    put(tmp_path, "set/data/train-00000.parquet", written(TEXTS * 3, "parquet"))
    put(tmp_path, "set/data/test-00000.parquet", written(["test", "đề"], "parquet"))
    return f"hf:{tmp_path / 'set'}"


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


# Finding sources


def test_folders_are_walked_in_order(tmp_path):
    for name in (
        "b.txt",
        "a/z.jsonl.xz",
        "a/b.TXT",
        "c.json",
        ".hidden.txt",
        ".git/x.txt",
        "no.md",
        "a/y.py",
    ):
        put(tmp_path, name, b"x")
    notes: list[str] = []
    found = find_sources([str(tmp_path / "c.json"), str(tmp_path / "a"), "-"], notes=notes.append)
    assert found == [
        Source(str(tmp_path / "c.json"), "json", 1, ""),
        Source(str(tmp_path / "a/b.TXT"), "txt", 1, ""),
        Source(str(tmp_path / "a/z.jsonl.xz"), "jsonl", 1, ".xz"),
        Source("-", "stdin", None, ""),
    ]
    assert len(notes) == 1
    notes.clear()
    names = [source.name for source in find_sources([str(tmp_path)], notes=notes.append)]
    assert names == [str(tmp_path / name) for name in ("a/b.TXT", "a/z.jsonl.xz", "b.txt", "c.json")]
    assert notes == [f"{tmp_path}: 2 files are no corpus by their endings and are not read: a/y.py, no.md"]


def test_a_note_names_a_few_files_only(tmp_path, capsys):
    for name in ("a.txt", *(f"{n}.md" for n in range(9))):
        put(tmp_path, name, b"")
    find_sources([str(tmp_path)])
    assert capsys.readouterr().err.endswith("0.md, 1.md, 2.md, 3.md, 4.md, …\n")


def test_identity_tells_a_changed_file(tmp_path):
    path = put(tmp_path, "a.txt", b"x")
    [source] = find_sources([str(path)])
    first = identity(source)
    assert first == {"name": str(path), "size": 1, "mtime_ns": path.stat().st_mtime_ns}
    put(tmp_path, "a.txt", b"xy")
    assert identity(source) != first
    path.unlink()
    nothing = {"size": None, "mtime_ns": None}
    assert identity(source) == {"name": str(path), **nothing}
    for name in ("-", "hf:a/b"):
        assert identity(*find_sources([name])) == {"name": name, **nothing}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.txt", "gone.txt is missing; give files, folders"),
        ("empty", "empty holds no file that can be read; name them .txt"),
        ("useless", "useless holds no file that can be read; name them .txt, .jsonl, .*parquet"),
        ("a.md", r"a.md is of no kind that can be read; name it .txt, .jsonl, .json, .csv, .tsv or .parquet"),
        ("a.xz", "a.xz is of no kind"),
        ("a.parquet.gz", "a.parquet.gz is of no kind .* all but .parquet also with .xz, .gz, .zst, .bz2"),
    ],
)
def test_what_is_no_source(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    for other in ("useless/a.py", "a.md", "a.xz", "a.parquet.gz"):
        put(tmp_path, other, b"")
    with pytest.raises(UserError, match=message):
        find_sources([str(tmp_path / name)])


@pytest.mark.parametrize("name", ["hf:", "hf::config", "hf:a:b:c:d"])
def test_names_of_hub_data_sets(name):
    with pytest.raises(UserError, match=f"{name} names no hub data set; write hf:NAME, hf:NAME:config"):
        find_sources([name])
    assert find_sources(["hf:a/b:c:d"]) == [Source("hf:a/b:c:d", "hub", None, "")]


def test_a_source_is_given_once(tmp_path):
    path = put(tmp_path, "a.txt", b"")
    for names in ([str(path), str(tmp_path)], ["-", "-"], ["hf:a", "hf:a"]):
        with pytest.raises(UserError, match="is given twice; leave one out"):
            find_sources(names)


# Errors


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "a.txt.xz",
            b"no archive",
            "a.txt.xz is not an .xz file; give it its real ending, or download it again",
        ),
        ("a.txt.gz", b"no archive", "a.txt.gz is not an .gz file"),
        ("a.txt.bz2", b"no archive", "a.txt.bz2 is not an .bz2 file"),
        ("a.txt.zst", gzip.compress(b"x"), "a.txt.zst is not an .zst file"),
        ("a.parquet", b"PAR1 no table", "a.parquet cannot be read as parquet: .*; download it again"),
        ("a.csv", b"id,body\n1,x\n", 'a.csv has no column "text", it has "id", "body"; .* --text_field'),
        ("a.csv", b"\n", 'a.csv has no column "text", it has none'),
        ("a.parquet", as_parquet({"id": [1]}), 'a.parquet has no column "text", "messages".*, it has "id"'),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, data, message):
    with pytest.raises(UserError, match=message):
        Read(put(tmp_path, name, data))


@pytest.mark.parametrize("name", ["a.txt", "a.parquet"])
def test_a_file_that_vanishes(tmp_path, name):
    sources = find_sources([str(put(tmp_path, name, b"x"))])
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=name):
        list(read_blocks(sources[0], text_field=None, notes=print))


def test_damaged_pages_of_parquet_are_an_error(tmp_path):
    data = bytearray(as_parquet({"text": [os.urandom(99).hex() for _ in range(999)]}))
    data[50:2000] = b"\xff" * 1950
    with pytest.raises(UserError, match="a.parquet cannot be read as parquet"):
        Read(put(tmp_path, "a.parquet", bytes(data)))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": "' + b"x" * 5000),
        ("a.csv", b'text\n"' + b"x\n" * 5000),
        ("a.json", b'[{"text": "x"},\n{"text": "' + b"x" * 5000),
    ],
)
def test_a_record_without_end_is_not_read_into_memory(tmp_path, monkeypatch, name, data):
    monkeypatch.setattr(streams, "PIECE", 100)
    monkeypatch.setattr(streams, "LONGEST_RECORD", 1000)
    monkeypatch.setattr(corpus_rows, "LONGEST_RECORD", 1000)
    with pytest.raises(
        UserError, match=f"{name}:2: the record that begins here is longer than .* open quote"
    ):
        Read(put(tmp_path, name, data), size=10)


@pytest.mark.parametrize(
    ("name", "package"), [("a.txt.zst", "zstandard"), ("a.parquet", "pyarrow"), ("hf:x", "datasets")]
)
def test_missing_packages_are_named(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    given = name if name.startswith("hf:") else put(tmp_path, name, b"x")
    with pytest.raises(UserError, match=f"needs the package {package}; run: pip install {package}"):
        Read(given)


# Real files


@pytest.mark.assets
def test_real_corpora(assets):
    whole = (assets / "corpora" / "vi" / "web_pol.txt").read_bytes().decode("utf-8")
    read = Read(assets / "corpora" / "vi" / "web_pol.txt")
    assert len(read.blocks) == 3 and "".join(read.texts) == unicodedata.normalize("NFC", whole)
    pairs = Read(assets / "corpora" / "envi" / "tatoeba.tsv")
    assert len(pairs.texts) == 2 * pairs.seen > 1000 and pairs.bad == []


# Records as they are, for training


def records(path: str, **options: object) -> tuple[list, list[str]]:
    (source,) = find_sources([path])
    parsed = [parse_rows(block) for block in read_blocks(source, text_field=None, notes=print, **options)]
    return [row for rows, _, _ in parsed for row in rows], [line for _, _, bad in parsed for line in bad]


@pytest.mark.parametrize(
    ("name", "data", "rows", "bad"),
    [
        ("a.jsonl", b'{"en": 1, "x": 2}\n\n[3]\nno\n', {1: {"en": 1, "x": 2}, 3: [3]}, [":4: not JSON"]),
        ("a.json", b'[{"en": 1, "x": 2}, {"x": 3}]', {1: {"en": 1}, 2: {"x": 3}}, []),
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
