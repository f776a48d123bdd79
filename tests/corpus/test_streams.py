"""vocabkit/corpus/streams.py: where texts and tables are cut, archives that break off."""

import csv
import gzip
import io
import json
import os
import struct

import pytest
import zstandard
from corpora import PACK, Read, as_csv, as_jsonl, put, written
from hypothesis import given
from hypothesis import strategies as st

from vocabkit.corpus import rows as corpus_rows
from vocabkit.corpus import streams
from vocabkit.errors import UserError

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
