"""Rows of .json, .parquet and .arrow files and hub data sets, one by one: never a whole file in memory.

Reads what it is given; writes nothing (datasets keeps a cache of its own). Standard library, and pyarrow and
datasets when a .parquet or .arrow file or a hub data set is met.
"""

import codecs
import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vocabkit.corpus.records import ARROW, PARQUET, fields_of, quoted
from vocabkit.corpus.streams import LONGEST_RECORD, PIECE, Stream, end_of_lines, too_long
from vocabkit.errors import UserError, one_line

LeftOut = Callable[[Sequence[str]], object]  # hears of a table's columns that are not read
_ARROW_FILE = b"ARROW1"
PARQUET_ROWS = 256  # rows decoded at a time: a row may be a book
_NOT_SPACE = re.compile(r"[^ \t\n\r]")
_JSON = json.JSONDecoder()
# What the json module says where a text breaks off is what it says of a wrong character there; within this
# many characters of the end, more text may make it right (-Infinity and \u12ab are the longest pieces).
_PIECE_OF_JSON = 16


def choose_column(names: Sequence[str], *, source: str, text_field: str | None) -> str:
    """Return the column that holds the texts; UserError, naming those there are, if there is none."""
    for field in fields_of(text_field):
        if field in names:
            return field
    wanted, found = quoted(fields_of(text_field)), quoted(names) or "none"
    raise UserError(f"{source} has no column {wanted}, it has {found}; name the right one with --text_field")


# JSON


def begins_with(stream: Stream, data: bytes) -> bool:
    """Whether what follows the white space at the start is data. Takes nothing."""
    while not (head := stream.buffer.lstrip()) and stream.more():
        pass
    return head.startswith(data)


def is_json_lines(stream: Stream) -> bool:
    """Whether the first line is a whole object: JSON lines under the name .json. Takes nothing."""
    if not begins_with(stream, b"{"):
        return False  # an array may be one line of gigabytes
    end = end_of_lines(stream, 1)
    try:
        json.loads(stream.buffer[:end])
    except (ValueError, RecursionError):
        return False
    return True


class _CutShort(Exception):
    """The archive broke off within a value; the stream has said so."""


class _JsonText:
    """Text of a stream with a place to read from: what lies before it is dropped as more is read.

    Bytes that are not UTF-8 become surrogates, so that only the rows that hold them are bad.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.text = ""
        self.at = 0
        self._line = 1  # of text[0]
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    @property
    def line(self) -> int:
        return self._line + self.text.count("\n", 0, self.at)

    def more(self) -> bool:
        """Drop what is before the place, then read at least as much as is left; False if there is no more."""
        self._line = self.line
        left = self.text[self.at :]
        if len(left) > LONGEST_RECORD:
            raise too_long(self.stream.name, self._line)
        parts, size = [left], len(left)
        while size <= 2 * len(left):  # twice as much each time: a long row is not parsed again for each piece
            ended = not self.stream.fill(1)
            data = self.stream.take(len(self.stream.buffer))
            parts.append(self._decoder.decode(data, final=ended))
            size += len(parts[-1])
            if ended:
                break
        self.text, self.at = "".join(parts), 0
        return size > len(left)

    def peek(self) -> str:
        """Go to the next character that is not white space and return it, "" at the end."""
        while True:
            if (char := self.text[self.at : self.at + 1]) and char not in " \t\n\r":
                return char
            found = _NOT_SPACE.search(self.text, self.at)
            self.at = found.start() if found else len(self.text)
            if not found and not self.more():
                return ""

    def value(self) -> tuple[Any, int]:
        """Read the value that begins here and its length in characters; UserError if it is not JSON."""
        while True:
            try:
                value, end = _JSON.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                line, reason = self._line - 1 + error.lineno, error.msg
                breaks_off = len(self.text) - error.pos < _PIECE_OF_JSON or reason.startswith("Unterminated")
                if breaks_off and self.more():
                    continue
                if breaks_off and self.stream.cut_short:
                    raise _CutShort from None
                raise self.error(reason, line=line) from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, many brackets
                raise self.error(one_line(error)) from None
            length = end - self.at
            if len(self.text) - end >= _PIECE_OF_JSON or not self.more():  # 12 may go on: 12.5e3
                self.at += length
                return value, length

    def error(self, reason: str, *, line: int | None = None) -> UserError:
        where = f"{self.stream.name}:{line or self.line}"
        return UserError(f"{where} is not JSON: {reason}; mend the file, or give JSON lines (.jsonl)")


def json_rows(stream: Stream) -> Iterator[tuple[Any, int]]:
    """Yield the elements of the array, or else the values one after another, that a .json file holds.

    Each comes with its length in characters. UserError, with the line, for what is not JSON: where the next
    row begins is unknown then.
    """
    text = _JsonText(stream)
    in_array = text.peek() == "["
    text.at += in_array
    try:
        while char := text.peek():
            if in_array and char == "]":
                text.at += 1
                if text.peek():
                    raise text.error("something follows the array")
                return
            yield text.value()
            if in_array and (char := text.peek()) not in ("]", ""):
                if char != ",":
                    raise text.error('expected "," or "]"')
                text.at += 1
    except _CutShort:
        return
    if in_array and not stream.cut_short:
        raise text.error("the array is never closed")


# Tables


def choose_columns(
    names: Sequence[str],
    *,
    source: str,
    text_field: str | None,
    columns: Sequence[str] | None,
    left_out: LeftOut,
) -> list[str]:
    """Return those of columns that there are, or else the one that holds the texts (choose_column)."""
    found = [name for name in names if name in (columns or ())]
    if not found or text_field not in (None, *found):
        found = [choose_column(names, source=source, text_field=text_field)]
    if others := [name for name in names if name not in found]:
        left_out(others)
    return found


def parquet_rows(
    path: str, *, start: int, text_field: str | None, columns: Sequence[str] | None, left_out: LeftOut
) -> Iterator[tuple[Any, float]]:
    """Yield (row, share of the file's rows read so far) from row number start on.

    Rows hold those of columns that the file has; None: the one column of texts. left_out hears of the others.
    """
    pa = _pyarrow(path)
    import pyarrow.parquet as pq

    with _table_errors(path, PARQUET), pq.ParquetFile(path, buffer_size=PIECE) as file:
        # A buffer makes pyarrow read pages as they are needed, not a row group at once.
        chosen = choose_columns(
            file.schema_arrow.names, source=path, text_field=text_field, columns=columns, left_out=left_out
        )
        done, group = 0, 0
        while group < file.num_row_groups and done + file.metadata.row_group(group).num_rows <= start:
            done += file.metadata.row_group(group).num_rows
            group += 1
        groups = range(group, file.num_row_groups)
        for batch in file.iter_batches(PARQUET_ROWS, row_groups=groups, columns=chosen):
            for row in _rows_of(pa, batch):
                done += 1
                if done > start:
                    yield row, done / file.metadata.num_rows


def arrow_rows(
    path: str, *, start: int, text_field: str | None, columns: Sequence[str] | None, left_out: LeftOut
) -> Iterator[tuple[Any, float]]:
    """What parquet_rows() yields, of Arrow's stream (datasets' save_to_disk) or file (feather) format."""
    pa = _pyarrow(path)
    with _table_errors(path, ARROW), pa.memory_map(path) as file:
        is_file = file.read(len(_ARROW_FILE)) == _ARROW_FILE
        file.seek(0)
        reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        chosen = choose_columns(
            reader.schema.names, source=path, text_field=text_field, columns=columns, left_out=left_out
        )
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
        done = 0
        for batch in batches:
            passed = min(max(start - done, 0), batch.num_rows)
            done += passed
            for first in range(passed, batch.num_rows, PARQUET_ROWS):
                for row in _rows_of(pa, batch.select(chosen).slice(first, PARQUET_ROWS)):
                    done += 1
                    yield row, file.tell() / file.size()


def _pyarrow(path: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"{path} needs the package pyarrow; run: pip install pyarrow") from None
    return pyarrow


@contextlib.contextmanager
def _table_errors(path: str, kind: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # what pyarrow makes of damaged bytes: a dozen unrelated types
        raise UserError(f"{path} cannot be read as {kind}: {one_line(error)}; download it again") from None


def _rows_of(pa: Any, batch: Any) -> Iterator[dict[str, Any]]:
    cells = []
    for values in batch.columns:
        if pa.types.is_string(values.type):
            values = values.view(pa.binary())  # what is not UTF-8 spoils its own row only
        elif pa.types.is_large_string(values.type):
            values = values.view(pa.large_binary())
        values.validate(full=True)  # else damaged offsets are followed, out of the file
        cells.append(map(_without_nulls, values.to_pylist()))
    for row in zip(*cells, strict=True):
        yield dict(zip(batch.schema.names, row, strict=True))


def _without_nulls(value: Any) -> Any:
    """A value without the fields that a table gives an object because others have them."""
    if isinstance(value, dict):
        return {name: _without_nulls(inside) for name, inside in value.items() if inside is not None}
    return [*map(_without_nulls, value)] if isinstance(value, list) else value


def hub_rows(
    name: str, *, start: int, text_field: str | None, columns: Sequence[str] | None, left_out: LeftOut
) -> Iterator[Any]:
    """Yield the rows of hf:NAME[:config[:split]] (split: train) from row number start on, as they arrive."""
    try:
        import datasets
    except ImportError:
        raise UserError(f"{name} needs the package datasets; run: pip install datasets") from None
    path, config, split, *_ = [*name.removeprefix("hf:").split(":"), "", ""]
    try:
        data = datasets.load_dataset(path, config or None, split=split or "train", streaming=True)
        if data.column_names:  # unknown for some
            chosen = choose_columns(
                data.column_names, source=name, text_field=text_field, columns=columns, left_out=left_out
            )
            data = data.select_columns(chosen)  # pictures and sounds are not decoded then
        for row in data.skip(start):
            yield {column: _without_nulls(value) for column, value in row.items()}
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{name} cannot be read: {one_line(error)}; check name, configuration and split, then run again"
        ) from None
