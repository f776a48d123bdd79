"""Records to texts: which part of a row is its text, and what makes a row bad.

Reads and writes no file: it is given the blocks that vocabkit/corpus/files.py has cut. Standard library only.
"""

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vocabkit.text.unicode import nfc

TEXT, JSONL, JSON, CSV, TSV, PARQUET, ARROW = "txt jsonl json csv tsv parquet arrow".split()
HUB, STDIN = "hub", "stdin"
CHATS = ("messages", "conversations")
FIELDS = ("text", *CHATS)  # where a row's text is looked for, in this order
DELIMITERS = {CSV: ",", TSV: "\t"}
_JSON_NAMES = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Block:
    """A piece of one source that ends where a record ends."""

    name: str  # of the source
    kind: str  # how data is parsed; not STDIN, and JSONL for a .json file of JSON lines
    first: int  # number, from 1, of its first line (bytes) or row (a list)
    data: bytes | list[Any]  # whole lines of the uncompressed file, or rows as Python objects
    end: int  # position after it, to start from: bytes of the uncompressed file, or rows
    bytes_read: int  # of the file on disk so far, those read ahead included; 0: unknown
    # CSV, TSV: index of the texts' column, or names of all, "" for those left out; None: each cell is a text
    column: int | tuple[str, ...] | None = None


class BadRecord(Exception):
    """A record that gives no text; the message is the reason, without file and line."""


def fields_of(text_field: str | None) -> tuple[str, ...]:
    """Return the fields a text is looked for in: the one that was asked for, or FIELDS."""
    return FIELDS if text_field is None else (text_field,)


def quoted(names: Iterable[str]) -> str:
    """Return names for a message, a few at most.

    >>> quoted(["id", "body"])
    '"id", "body"'
    """
    names = list(names)
    return ", ".join(f'"{name}"' for name in names[:20]) + (", …" if len(names) > 20 else "")


def described(value: Any) -> str:
    """Return what a value of JSON is, for a message."""
    return _JSON_NAMES.get(
        type(value), "a number" if isinstance(value, int | float) else type(value).__name__
    )


def nfc_lines(text: str) -> str:
    """Return text as NFC, line by line: one decomposed letter in a megabyte costs one line, not a megabyte.

    The same as nfc(text): nothing composes with a line end, and no mark moves across it.
    """
    if unicodedata.is_normalized("NFC", text):  # nearly always, and seven times faster to ask than to do
        return text
    return "\n".join(map(nfc, text.split("\n"))) if "\n" in text else nfc(text)


def clean_text(text: str) -> str:
    """Return text as NFC; BadRecord if it cannot be written as UTF-8 (JSON and Python can hold more)."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape keeps a byte that is not UTF-8
            raise BadRecord(f"not UTF-8 (byte 0x{code & 0xFF:02x})") from None
        raise BadRecord(f"holds half a character (lone surrogate \\u{code:04x})") from None
    return nfc_lines(text)


def messages_in(value: Any) -> list[Any] | None:
    """Return the messages that a value holds, None if it is no conversation.

    Tables keep them as JSON text, too, and as an object of lists.

    >>> messages_in('[{"role": "user", "content": "a"}]'), messages_in({"role": ["user"], "content": ["a"]})
    ([{'role': 'user', 'content': 'a'}], [{'role': 'user', 'content': 'a'}])
    """
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
        if not (isinstance(value, list) and all(map(_is_message, value))):
            return None
    elif isinstance(value, dict) and _is_message(value):
        lists = list(value.values())
        if not all(isinstance(inside, list) and len(inside) == len(lists[0]) for inside in lists):
            return None
        value = [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
    return value if isinstance(value, list) else None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and ("role" in value or "from" in value)


def texts_of_messages(messages: list[Any], where: str) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield each message of [{"role", "content"}, …] or [{"from", "value"}, …] with the texts it holds.

    None where a message only calls a tool. where: what they are called in a BadRecord.
    """
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not any(
            name in message for name in ("content", "value", "tool_calls", "function_call")
        ):
            raise BadRecord(f'message {number} of {where} has neither "content" nor "value"')
        content = message.get("content")
        if content is None:
            content = message.get("value")
        if isinstance(content, str):
            yield message, [content]
        elif isinstance(content, list) and all(isinstance(part, dict) for part in content):
            # Pictures and sounds are parts without text.
            yield message, [part["text"] for part in content if isinstance(part.get("text"), str)]
        elif content is None:  # the message only calls a tool
            yield message, []
        else:
            raise BadRecord(f"message {number} of {where} is {described(content)}, expected a string")


def text_of_row(row: Any, text_field: str | None) -> str:
    """Return the text of an object: a string, UTF-8 bytes or a chat; not yet NFC. BadRecord if it has none.

    A field that was asked for may also be a list of strings, which become lines.

    >>> text_of_row({"messages": [{"role": "user", "content": "Chào"}, {"from": "gpt", "value": "Hi"}]}, None)
    'Chào\\nHi'
    >>> text_of_row({"instruction": "Dịch", "input": "Chào", "output": "Hi"}, None)
    'Dịch\\nChào\\nHi'
    """
    if not isinstance(row, dict):
        raise BadRecord(f"{described(row)}, expected an object")
    value = row.get(FIELDS[0] if text_field is None else text_field)
    if isinstance(value, str):  # nearly always: the rest costs as much as parsing the line
        return value
    fields = fields_of(text_field)
    present = [field for field in fields if field in row]
    if not present and text_field is None and {"instruction", "output"} <= row.keys():  # Alpaca's form
        parts = [row[name] for name in ("instruction", "input", "output") if row.get(name)]
        if parts and all(isinstance(part, str) for part in parts):
            return "\n".join(parts)
    if not present:
        raise BadRecord(f"no {quoted(fields)} among its fields: {quoted(row) or 'it is empty'}")
    field = next((field for field in present if row[field] is not None), present[0])
    value = row[field]
    if text_field is not None and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if field != FIELDS[0] or isinstance(value, list):
        if (messages := messages_in(value)) is not None:
            return "\n".join(text for _, texts in texts_of_messages(messages, f'"{field}"') for text in texts)
    if isinstance(value, bytes):
        return decoded(value)
    if not isinstance(value, str):
        raise BadRecord(f'"{field}" is {described(value)}, expected a string')
    return value


def decoded(data: bytes) -> str:
    """Return UTF-8 bytes as text; BadRecord if they are none."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord(f"not UTF-8 (byte 0x{data[error.start]:02x})") from None


def _json_row(line: bytes) -> Any:
    text = decoded(line)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRecord(f"not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise BadRecord(f"not JSON: {error}") from None


def csv_rows(data: bytes, *, first: int, kind: str) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """Yield (line number, cells) of the rows that are not blank; bytes that are not UTF-8 as surrogates."""
    csv.field_size_limit((1 << 31) - 1)  # the default, 128 KiB, is less than a long article
    ended = False

    def lines() -> Iterator[str]:
        nonlocal ended
        yield from io.StringIO(data.decode("utf-8", "surrogateescape"), newline="\n")
        ended = True

    reader = csv.reader(lines(), delimiter=DELIMITERS[kind])
    while True:
        line = first + reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, BadRecord(f"not {kind.upper()}: {error}")
            continue
        if ended:  # the reader asked for a line more than there is
            yield line, BadRecord("a quote that opens here is never closed")
        elif row:
            yield line, row


Parsed = tuple[list[str], int, list[str]]


def parse_block(block: Block, *, text_field: str | None) -> Parsed:
    """Return a block's texts (NFC), its number of records, and its bad records as "FILE:LINE: reason".

    The records are rows or, of a .txt file, lines: its block is one text without the lines that are not
    UTF-8.
    """
    if block.kind == TEXT and isinstance(block.data, bytes):
        return _parse_document(block.data, block)
    return _parse(block, lambda where, record: map(clean_text, _texts_of(block, record, text_field)))


def parse_rows(
    block: Block, *, text_field: str | None = None
) -> tuple[list[tuple[str, Any]], int, list[str]]:
    """Return a block's records as they are, each with its "FILE:LINE", and what parse_block() returns else.

    A record is what JSON, parquet, the hub or the known columns of a CSV or TSV say (an object, as a rule),
    {"text": …} of a document or a chosen column (under text_field, if that is given), or the list of cells of
    a TSV line without a header.
    """
    field = text_field or FIELDS[0]
    if block.kind == TEXT and isinstance(block.data, bytes):
        texts, seen, bad = _parse_document(block.data, block)
        return [(f"{block.name}:{block.first}", {field: text}) for text in texts], seen, bad
    named = isinstance(block.column, int)
    return _parse(block, lambda where, record: [(where, {field: record} if named else record)])


def _parse(block: Block, take: Callable[[str, Any], Iterable[Any]]) -> tuple[list[Any], int, list[str]]:
    """Collect what take() makes of each record and its place, count the records, describe the bad ones."""
    found: list[Any] = []
    bad: list[str] = []
    seen = 0
    for number, raw in _numbered(block):
        seen += 1
        where = f"{block.name}:{number}"
        try:
            found += list(take(where, _record(block, raw)))
        except BadRecord as error:
            bad.append(f"{where}: {error}")
    return found, seen, bad


def _numbered(block: Block) -> Iterable[tuple[int, Any]]:
    """The records as they lie in a block, with the number of each one's first line or of its row."""
    if not isinstance(block.data, bytes):
        return enumerate(block.data, block.first)
    if block.column is not None:
        return csv_rows(block.data, first=block.first, kind=block.kind)
    lines = enumerate(block.data.split(b"\n"), block.first)
    return ((number, line) for number, line in lines if line and not line.isspace())


def _record(block: Block, raw: Any) -> Any:
    """What one of them holds: the value of JSON or of a table's row, the cells of a line, the chosen cell."""
    if not isinstance(block.data, bytes):
        return raw
    if block.kind == JSONL:
        return _json_row(raw)
    if block.column is None:
        return decoded(raw).rstrip("\r").split("\t")
    if isinstance(raw, BadRecord):
        raise raw
    if isinstance(block.column, tuple):
        if len(raw) != len(block.column):
            raise BadRecord(f"has {len(raw)} cells, the first line {len(block.column)}")
        return {name: cell for name, cell in zip(block.column, raw, strict=True) if name and cell}
    if block.column >= len(raw):
        raise BadRecord(f"has {len(raw)} cells, the text is expected in cell {block.column + 1}")
    return raw[block.column]


def _texts_of(block: Block, record: Any, text_field: str | None) -> list[str]:
    if block.kind == JSONL or not isinstance(block.data, bytes):
        return [text_of_row(record, text_field)]
    return record if block.column is None else [record]


def _parse_document(data: bytes, block: Block) -> Parsed:
    """One text of what is UTF-8. Its lines are the records: one bad line in a megabyte is not one in one."""
    seen = data.count(b"\n") + (not data.endswith(b"\n"))
    try:
        return [nfc_lines(data.decode("utf-8"))], seen, []
    except UnicodeDecodeError:
        good, bad = [], []
    for number, line in enumerate(io.BytesIO(data), block.first):
        try:
            good.append(decoded(line))
        except BadRecord as error:
            bad.append(f"{block.name}:{number}: {error}")
    return ([nfc_lines("".join(good))] if good else []), seen, bad
