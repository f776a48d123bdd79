"""vocabkit/corpus/lines.py: texts and lines of everything that a corpus may be."""

import gzip
import itertools

import pytest
from corpora import PACK, as_csv, as_jsonl, as_parquet, put, written
from tiny import ROOT

from vocabkit.corpus.files import find_sources
from vocabkit.corpus.lines import check_readable, held_out, lines_in_turns, read_texts, training_lines
from vocabkit.errors import UserError

CHAT = {"messages": [{"role": "user", "content": "bốn"}, {"role": "assistant", "content": "năm"}]}


@pytest.mark.parametrize("ending", PACK)
def test_texts_of_text_files_are_a_few_lines_at_a_time(tmp_path, ending):
    path = put(tmp_path, f"a.txt{ending}", PACK[ending]("một\nhai\nba\n".encode()))
    assert list(read_texts([path], lines_per_text=2)) == ["một\nhai\n", "ba\n"]


def test_lines_are_put_together_across_the_documents_of_a_long_text(tmp_path, monkeypatch):
    monkeypatch.setattr("vocabkit.corpus.files.DOCUMENT_BYTES", 4)
    path = put(tmp_path, "a.txt", b"".join(b"%d\n" % number for number in range(20)))
    assert list(itertools.islice(read_texts([path]), 2)) == ["0\n1\n2\n3\n4\n5\n6\n7\n"] + [
        "8\n9\n10\n11\n12\n13\n14\n15\n"
    ]


@pytest.mark.parametrize("ending", PACK)
def test_texts_of_records_are_one_each(tmp_path, ending):
    rows = [{"text": "bốn\nnăm", "id": 1}, {"text": "sáu"}, CHAT]
    path = put(tmp_path, f"b.jsonl{ending}", PACK[ending](as_jsonl(rows)))
    assert list(read_texts([str(path)])) == ["bốn\nnăm", "sáu", "bốn\nnăm"]


@pytest.mark.parametrize(
    ("name", "data", "texts"),
    [
        ("a.csv", as_csv([["id", "text"], ["1", "một\nhai"]]), ["một\nhai"]),
        ("a.tsv", "one\tmột\n".encode(), ["one", "một"]),
        ("a.json", written(["một", "hai"], "json"), ["một", "hai"]),
        ("a.parquet", as_parquet({"text": ["một", "hai"]}), ["một", "hai"]),
        ("words.jsonl", as_jsonl([{"word": "hôm▁nay", "examples": ["Hôm nay mưa.", "Hẹn hôm nay."]}]),
         ["Hôm nay mưa.\nHẹn hôm nay."]),
    ],
)  # fmt: skip
def test_texts_of_every_kind(tmp_path, name, data, texts):
    path = put(tmp_path, name, data)
    assert [source.name for source in check_readable([path])] == [str(path)]
    assert list(read_texts([path])) == texts


def test_texts_of_hub_data_sets(hub):
    assert [source.name for source in check_readable([f"{hub}::test"])] == [f"{hub}::test"]
    assert list(read_texts([f"{hub}::test"])) == ["test", "đề"]


def test_texts_of_a_folder_come_in_the_order_of_names(tmp_path, capsys):
    for name in ("b.txt", "a.txt", "sub/c.txt", ".hidden", "no.md"):
        put(tmp_path, name, name.encode())
    check_readable([tmp_path])
    assert list(read_texts([tmp_path])) == ["a.txt", "b.txt", "sub/c.txt"]
    assert capsys.readouterr().err.count("no.md") == 1, "said once, by the check"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "a.txt is missing"),
        ("a.md", b"x", "a.md is of no kind that can be read; name it .txt"),
        ("a.txt", b"ok\n\xff\n", r"a.txt:2: not UTF-8 \(byte 0xff\); mend or remove it"),
        ("a.txt.gz", b"no archive", "a.txt.gz is not an .gz file"),
        ("a.txt.xz", b"no archive", "a.txt.xz is not an .xz file"),
        ("a.txt.bz2", b"no archive", "a.txt.bz2 is not an .bz2 file"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl:2: not JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', 'a.jsonl:2: no "text", .* among its fields: "body"'),
        ("a.jsonl", b"[1]\n", "a.jsonl:1: a list, expected an object"),
        ("a.csv", b"id\n1\n", 'a.csv has no column "text"'),
    ],
)
@pytest.mark.parametrize("read", [lambda texts: list(read_texts(texts)), check_readable])
def test_texts_that_cannot_be_read_name_file_and_line(tmp_path, name, content, message, read):
    if content is not None:
        put(tmp_path, name, content)
    with pytest.raises(UserError, match=message):
        read([tmp_path / name])


def test_a_look_is_short(tmp_path):
    rows = as_jsonl([{"text": "x" * 1000}] * 1000)
    path = put(tmp_path, "a.jsonl", rows + b"{broken\n")
    assert len(check_readable([path])) == 1
    with pytest.raises(UserError, match="a.jsonl:1001: not JSON"):
        list(read_texts([path]))


def test_an_archive_that_breaks_off_gives_what_it_holds_and_a_note(tmp_path, capsys):
    packed = gzip.compress(b"one line\n" * 9, compresslevel=0)
    path = put(tmp_path, "a.txt.gz", packed[:-20])
    assert "".join(read_texts([path])).startswith("one line\n" * 6)
    assert "a.txt.gz ends early (truncated .gz)" in capsys.readouterr().err


def test_an_empty_folder_of_texts_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no file"):
        list(read_texts([tmp_path]))


def test_standard_input_cannot_be_read_again():
    with pytest.raises(UserError, match="can be read once, texts are read several times; give a file"):
        check_readable(["-"])


def test_bundled_texts_are_read():
    texts = list(read_texts([ROOT / "data" / "verify_texts.txt"]))
    assert len(texts) > 5 and "".join(texts).count("ệ") > 5


def test_lines_come_from_all_sources_in_turn(tmp_path):
    long = put(tmp_path, "a.txt", b"".join(b"a%d\n\n" % number for number in range(100)))
    chats = put(tmp_path, "b.jsonl", as_jsonl([CHAT, {"id": 1}]))
    notes: list[str] = []
    lines = list(lines_in_turns(find_sources([long, chats]), notes=notes.append))
    assert lines == [*(f"a{n}" for n in range(64)), "bốn", "năm", *(f"a{n}" for n in range(64, 100))]
    assert len(notes) == 1 and notes[0].startswith(f"1 of 2 records of {chats} give no text, the first is")


def test_equal_lines_are_on_one_side():
    lines = [f"Dòng {number}" for number in range(4000)]
    for one_in in (4, 10):
        assert sum(held_out(line, one_in=one_in) for line in lines) == pytest.approx(4000 / one_in, rel=0.1)
    assert not held_out("", one_in=4)
    apart = [line for line in lines if held_out(line, one_in=10)]
    assert training_lines("\n".join(lines)).split("\n") == [line for line in lines if line not in set(apart)]
