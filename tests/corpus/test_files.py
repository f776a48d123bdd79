"""vocabkit/corpus/files.py: texts of every kind, blocks to go on from, which files are sources."""

import gzip
import io
import lzma
import random
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from corpora import DECOMPOSED, PACK, TEXTS, Read, as_parquet, put, written

from vocabkit.corpus.files import Source, find_sources, identity, read_blocks
from vocabkit.errors import UserError

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
        (
            "a.md",
            "a.md is of no kind that can be read; name it .txt, .jsonl, .json, .csv, .tsv, .parquet or",
        ),
        ("a.xz", "a.xz is of no kind"),
        ("a.parquet.gz", "a.parquet.gz is of no kind .* all but the last two also with .xz, .gz, .zst, .bz2"),
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
        ("a.txt.zst", gzip.compress(b"x", mtime=0), "a.txt.zst is not an .zst file"),
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
