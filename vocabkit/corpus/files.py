"""Texts out of files, folders, standard input and hub data sets, in blocks that other processes parse.

find_sources() lists the inputs, read_blocks() reads one and cuts it, parse_block() makes texts of a block:

    for source in find_sources(["corpora", "more.jsonl.xz", "hf:NAME:config:split"]):
        for block in read_blocks(source, text_field=None, notes=print):
            texts, seen, bad = parse_block(block, text_field=None)

Reads what it is given; writes nothing. Standard library; zstandard, pyarrow and datasets where they are
needed.
"""

import contextlib
import functools
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vocabkit.corpus.records import (
    ARROW,
    CSV,
    DELIMITERS,
    HUB,
    JSON,
    JSONL,
    PARQUET,
    STDIN,
    TEXT,
    TSV,
    Block,
    csv_rows,
    fields_of,
)
from vocabkit.corpus.rows import (
    LeftOut,
    arrow_rows,
    begins_with,
    choose_column,
    hub_rows,
    is_json_lines,
    json_rows,
    parquet_rows,
)
from vocabkit.corpus.streams import ARCHIVES, Notes, Stream, cut, end_of_lines, end_of_rows, end_of_text
from vocabkit.errors import UserError, one_line
from vocabkit.files import read_json_object, regular

TABLES = {PARQUET: parquet_rows, ARROW: arrow_rows}
STREAMS = (TEXT, JSONL, JSON, CSV, TSV)
ENDINGS = "{}, .parquet or .arrow; all but the last two also with {}".format(
    ", ".join(f".{kind}" for kind in STREAMS), ", ".join(ARCHIVES)
)
DOCUMENT_BYTES = 1 << 20  # a longer .txt is several documents
BLOCK_BYTES = 4 << 20  # of other kinds: enough work for one parse_block() that handing it over costs little
VALUE_BYTES = 64  # what a Python object takes beside its text, about: rows without text fill a block as well
NAMED_FILES = 5


@dataclass(frozen=True)
class Source:
    """One input: a file, "-" or "hf:NAME[:config[:split]]"."""

    name: str
    kind: str  # a kind of corpus_records: TEXT, JSONL, …
    size: int | None  # bytes on disk; None: unknown before it ends
    compression: str  # one of ARCHIVES, or "" for none


def print_note(note: str) -> None:
    """Show a note to the person at the terminal; the default of find_sources()."""
    print(one_line(note), file=sys.stderr)


def find_sources(corpus: Sequence[str | Path], *, notes: Notes = print_note) -> list[Source]:
    """Return the inputs that the arguments of a command line name, those of folders in the order of names.

    Hidden files of folders are passed over; notes hears of the others that no reader is known for. Raises
    UserError for what is missing, unknown, empty or given twice.
    """
    sources: list[Source] = []
    for name, path in zip(map(str, corpus), map(Path, corpus), strict=True):
        if name == "-":
            sources.append(Source(name, STDIN, None, ""))
        elif name.startswith("hf:"):
            if not 2 <= len(parts := name.split(":")) <= 4 or not parts[1]:
                raise UserError(
                    f"{name} names no hub data set; write hf:NAME, hf:NAME:config or hf:NAME:config:split"
                )
            sources.append(Source(name, HUB, None, ""))
        elif path.is_dir():
            sources += _folder_sources(path, notes)
        elif not path.exists():
            raise UserError(f"{name} is missing; give files, folders, - for standard input, or hf:NAME")
        elif source := _file_source(path):
            sources.append(source)
        else:
            raise UserError(f"{name} is of no kind that can be read; name it {ENDINGS}")
    seen = set()
    for source in sources:
        if source.name in seen:
            raise UserError(f"{source.name} is given twice; leave one out, or its texts count double")
        seen.add(source.name)
    return sources


def _file_source(path: Path) -> Source | None:
    """The source that a file is by the ending of its name; None for another ending."""
    name = path.name.lower()
    compression = next((ending for ending in ARCHIVES if name.endswith(ending)), "")
    kind = Path(name.removesuffix(compression)).suffix.removeprefix(".")
    if kind not in STREAMS and (kind not in TABLES or compression):
        return None
    return Source(str(path), kind, path.stat().st_size, compression)


def _folder_sources(folder: Path, notes: Notes) -> list[Source]:
    sources, skipped = [], []
    passed = _passed_over(folder, notes)
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or not path.is_file():
            continue
        if path in passed or not passed.isdisjoint(path.parents):
            continue
        if source := _file_source(path):
            sources.append(source)
        else:
            skipped.append(str(inside))
    if not sources:
        raise UserError(f"{folder} holds no file that can be read; name them {ENDINGS}")
    if skipped:
        others = ", …" if len(skipped) > NAMED_FILES else ""
        notes(
            f"{folder}: {len(skipped):,} files are no corpus by their endings and are not read: "
            f"{', '.join(skipped[:NAMED_FILES])}{others}"
        )
    return sources


def _passed_over(folder: Path, notes: Notes) -> set[Path]:
    """What is no data in folders that datasets' save_to_disk wrote: their lists, old shards, other splits."""
    passed: set[Path] = set()
    for state in folder.rglob("state.json"):
        if (state.parent / "dataset_info.json").is_file():
            listed = [entry["filename"] for entry in read_json_object(state).get("_data_files", [])]
            passed |= {state, state.parent / "dataset_info.json"}
            passed |= {path for path in state.parent.glob("*.arrow") if path.name not in listed}
    for path in folder.rglob("dataset_dict.json"):
        splits = read_json_object(path).get("splits", [])
        passed.add(path)
        if "train" in splits and (others := [name for name in splits if name != "train"]):
            passed |= {path.parent / name for name in others}
            notes(f"{path.parent}: split train is read, not {', '.join(others)}; name its folder for another")
    return passed


def identity(source: Source) -> dict[str, Any]:
    """Return what tells, on the next run, whether a source is still the same: name, size, mtime_ns.

    Size and time are None for standard input and hub data sets, and for a file that is gone.
    """
    try:
        if source.size is None:
            raise FileNotFoundError
        stat = Path(source.name).stat()
    except FileNotFoundError:
        return {"name": source.name, "size": None, "mtime_ns": None}
    return {"name": source.name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def read_blocks(
    source: Source,
    *,
    start: int = 0,
    text_field: str | None,
    columns: Sequence[str] | None = None,
    left_out: LeftOut = lambda names: None,
    block_bytes: int | None = None,
    notes: Notes,
) -> Iterator[Block]:
    """Yield the blocks of a source from position start (0 or the end of one of its blocks).

    Starting at the end of any block gives exactly the blocks that followed it. block_bytes: about how large
    they are (None: DOCUMENT_BYTES for text, which makes a block one document, BLOCK_BYTES for all else).
    columns: those of a table that parse_rows() is to find, where there are any of them (None: the one that a
    text is in); left_out hears of the others. Rows of JSON are whole then. An archive that is truncated or
    damaged gives what comes before, less an unfinished line or row, and is reported to notes. Raises
    UserError for a source that cannot be read, has no column of texts, or is .json but not JSON.
    """
    wanted = fields_of(text_field) if columns is None else ()
    options: dict[str, Any] = {
        "start": start, "text_field": text_field, "columns": columns, "left_out": left_out,
    }  # fmt: skip
    if source.kind in TABLES:
        on_disk = source.size or 0
        table = TABLES[source.kind](source.name, **options)
        rows = ((row, _weight(row), int(share * on_disk)) for row, share in table)
        yield from _row_blocks(source, rows, start=start, size=block_bytes or BLOCK_BYTES)
    elif source.kind == HUB:
        hub = (_needed(row, fields=wanted) for row in hub_rows(source.name, **options))
        rows = ((row, _weight(row), 0) for row in hub)
        yield from _row_blocks(source, rows, start=start, size=block_bytes or BLOCK_BYTES)
    else:
        with _opened(source) as file:
            yield from _stream_blocks(
                source,
                file,
                start=start,
                text_field=text_field,
                wanted=wanted,
                columns=columns or (),
                left_out=left_out,
                block_bytes=block_bytes,
                notes=notes,
            )


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    if source.kind == STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = open(regular(Path(source.name)), "rb")
    except FileNotFoundError:
        raise UserError(f"{source.name} is missing; it was there when this run began") from None
    with file:
        yield file


def _stream_blocks(
    source: Source,
    file: IO[bytes],
    *,
    start: int,
    text_field: str | None,
    wanted: tuple[str, ...],
    columns: Sequence[str],
    left_out: LeftOut,
    block_bytes: int | None,
    notes: Notes,
) -> Iterator[Block]:
    """The blocks of everything that is read as a stream of bytes."""
    stream = Stream(file, name=source.name, ending=source.compression, notes=notes)
    kind, column, end_of = source.kind, None, end_of_lines
    if kind == STDIN:
        kind = JSONL if begins_with(stream, b"{") else TEXT
    elif kind == JSON and is_json_lines(stream):
        kind = JSONL
    size = block_bytes or (DOCUMENT_BYTES if kind == TEXT else BLOCK_BYTES)
    if kind == JSON:
        rows = itertools.islice(json_rows(stream), start, None)
        cut_rows = (
            (_needed(row, fields=wanted), VALUE_BYTES + length, stream.bytes_read) for row, length in rows
        )
        yield from _row_blocks(source, cut_rows, start=start, size=size)
        return
    if kind == TEXT:
        end_of = end_of_text
    elif kind in DELIMITERS:
        column = _header(
            stream, kind=kind, text_field=text_field, columns=columns, left_out=left_out, notes=notes
        )
        if column is not None:
            end_of = functools.partial(end_of_rows, delimiter=DELIMITERS[kind])
    stream.skip_to(start)
    for first, data in cut(stream, size, end_of):
        yield Block(source.name, kind, first, data, stream.position, stream.bytes_read, column)


def _header(
    stream: Stream,
    *,
    kind: str,
    text_field: str | None,
    columns: Sequence[str],
    left_out: LeftOut,
    notes: Notes,
) -> int | tuple[str, ...] | None:
    """Pass over the header of a CSV or TSV stream and return the index of the column of texts.

    Where there is none, but some of columns are, the names of all. None, with nothing passed over, for a TSV
    whose first line has neither: it has no header.
    """
    column = text_field or "text"
    size = end_of_lines(stream, 1) if kind == TSV else end_of_rows(stream, 1, delimiter=DELIMITERS[kind])
    rows = csv_rows(bytes(stream.buffer[:size]), first=1, kind=kind)
    names = next((row for _, row in rows if isinstance(row, list)), [])
    known = set(columns) & set(names)
    if text_field is None and column not in names and len(known) > (kind == TSV):  # one could be a text
        stream.take(size)
        if others := [name for name in names if name not in columns]:
            left_out(others)
        return tuple(name if name in columns else "" for name in names)
    if kind == TSV and column not in names:
        if size:
            notes(f'{stream.name} has no column "{column}" in its first line: every cell is read as a text')
        return None
    stream.take(size)
    if not size:  # an empty file
        return 0
    at = names.index(choose_column(names, source=stream.name, text_field=column))
    if others := names[:at] + names[at + 1 :]:
        left_out(others)
    return at


def _needed(row: Any, *, fields: tuple[str, ...]) -> Any:
    """A row without what no text comes from, so that little is handed to another process."""
    if not isinstance(row, dict):
        return row
    return {field: row[field] for field in fields if field in row} or row


def _weight(value: Any) -> int:
    if isinstance(value, str | bytes):
        return VALUE_BYTES + len(value)
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return VALUE_BYTES + sum(map(_weight, inside))


def _row_blocks(
    source: Source, rows: Iterable[tuple[Any, int, int]], *, start: int, size: int
) -> Iterator[Block]:
    """Blocks of (row, bytes it takes, bytes read so far); start is the number of rows before the first."""
    batch: list[Any] = []
    weight = bytes_read = 0
    for row, row_weight, bytes_read in rows:
        batch.append(row)
        weight += row_weight
        if weight >= size:
            start, first = start + len(batch), start + 1
            yield Block(source.name, source.kind, first, batch, start, bytes_read)
            batch, weight = [], 0
    if batch:
        yield Block(source.name, source.kind, start + 1, batch, start + len(batch), bytes_read)
