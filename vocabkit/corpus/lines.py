"""Lines out of corpora: in turns from many sources, some of them held out for measuring.

Reads the sources of corpus/files.py; writes nothing. Whether a line is held out is decided by the line alone.
"""

import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vocabkit.corpus.files import Source, parse_block, print_note, read_blocks
from vocabkit.corpus.records import JSONL
from vocabkit.corpus.streams import Notes
from vocabkit.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: copies are plain, and two runs on one OUT are not kept apart
    fcntl = None  # type: ignore[assignment]
from collections import Counter

from vocabkit.files import text_lines
from vocabkit.text.languages import (
    is_vietnamese_line,
)

HELD_OUT = 10  # one line of so many is kept for measuring


def held_out(line: str) -> bool:
    """Whether a line is kept for measuring: one in ten, by its CRC-32, so that equal lines are on one side.

    >>> [held_out(f"Dòng {n}") for n in range(5)]
    [True, False, False, False, False]
    """
    return zlib.crc32(line.encode("utf-8")) % HELD_OUT == 1  # 0 would be the empty line


TEST_ONE_IN = 4

TURN = 64  # lines of a source before it is the next one's turn

EXAMPLES = "examples"  # field of the rows of a word list that holds sentences


def is_test(line: str) -> bool:
    """Whether a line is for testing: one in four, by its CRC-32, so that equal lines are on one side.

    >>> [is_test(f"Dòng {n}") for n in range(6)]
    [True, False, True, False, False, False]
    """
    return zlib.crc32(line.encode("utf-8")) % TEST_ONE_IN == 1  # 0 would be the empty line


def lines_in_turns(
    sources: Sequence[Source], *, text_field: str | None, block_bytes: int | None, notes: Notes
) -> Iterator[str]:
    """The lines of all sources, some of each in turn."""
    readers = [
        _lines_of(source, text_field=text_field, block_bytes=block_bytes, notes=notes) for source in sources
    ]
    while readers:
        still = []
        for reader in readers:
            turn = list(itertools.islice(reader, TURN))
            yield from turn
            if len(turn) == TURN:
                still.append(reader)
        readers = still


def _lines_of(
    source: Source, *, text_field: str | None, block_bytes: int | None, notes: Notes
) -> Iterator[str]:
    """The lines of one source that are not blank; bad records are counted into one note at its end."""
    first_bad = ""
    count = bad = 0
    for block in read_blocks(source, text_field=text_field, block_bytes=block_bytes, notes=notes):
        if not count and block.kind == JSONL and text_field is None and _has_examples(block.data):
            text_field = EXAMPLES
        texts, seen, wrong = parse_block(block, text_field=text_field)
        count += seen
        bad += len(wrong)
        first_bad = first_bad or next(iter(wrong), "")
        for text in texts:
            yield from (line.strip() for line in text.split("\n") if line.strip())
    if bad:
        notes(f"{bad:,} of {count:,} records of {source.name} give no text, the first is {first_bad}")


def _has_examples(data: Any) -> bool:
    """Whether the first row of a .jsonl block is that of a word list: it has sentences and no text."""
    try:
        row = json.loads(data.split(b"\n", 1)[0])
    except ValueError:
        return False
    return (
        isinstance(row, dict) and EXAMPLES in row and not {"text", "messages", "conversations"} & row.keys()
    )


def read_texts(paths: list[Path], *, lines_per_text: int = 8) -> Iterator[str]:
    """Yield texts of files and folders: "text" of each .jsonl row, else up to lines_per_text lines at a time.

    Raises UserError with file and line for what cannot be read.
    """
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not inside:
                raise UserError(f"{path} holds no file; give text files or a folder of them")
            yield from read_texts(inside, lines_per_text=lines_per_text)
        elif ".jsonl" in path.suffixes:
            yield from _jsonl_texts(path)
        else:
            lines: list[str] = []
            for line in text_lines(path):
                lines.append(line)
                if len(lines) == lines_per_text:
                    yield "".join(lines)
                    lines = []
            if lines:
                yield "".join(lines)


def _jsonl_texts(path: Path) -> Iterator[str]:
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number} is not JSON: {error.msg}; mend or remove the line") from None
        text = row.get("text") if isinstance(row, dict) else None
        if isinstance(text, str):
            yield text
        else:
            raise UserError(f'{path}:{number} has no "text" string; give rows such as {{"text": "…"}}')


MAX_BYTES = 16 << 20  # of text that is measured: a longer one gives the same shares


def measured_lines(
    sources: Sequence[Source], *, take: Callable[[str], bool] = held_out, text_field: str | None = None
) -> Counter[str]:
    """Return the Vietnamese lines of a corpus that take() wants, with how often each comes; MAX_BYTES at
    most.

    Raises UserError if there is none.
    """
    found: Counter[str] = Counter()
    size = 0
    for source in sources:
        for block in read_blocks(source, text_field=text_field, notes=lambda note: None):
            for text in parse_block(block, text_field=text_field)[0]:
                for line in text.split("\n"):
                    if take(line) and is_vietnamese_line(line):
                        found[line] += 1
                        size += len(line.encode("utf-8"))
            if size > MAX_BYTES:
                print_note(f"note: measured on the first {MAX_BYTES >> 20} MB of held-out text")
                return found
    if not found:
        names = ", ".join(source.name for source in sources)
        raise UserError(f"{names}: no Vietnamese line to measure on; give Vietnamese texts with --held_out")
    return found
