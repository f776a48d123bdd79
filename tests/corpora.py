"""Files of every kind that a corpus may be, for tests: made of texts, and read again."""

import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import pickle
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from vocabkit.corpus.files import find_sources, read_blocks
from vocabkit.corpus.records import Block, parse_block

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
