"""Lines and short texts out of corpora: in turns from many sources, some of them held out for measuring.

Reads the sources of corpus/files.py; writes nothing. Whether a line is held out is decided by the line alone.
"""

import io
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vocabkit.corpus.files import Source, find_sources, print_note, read_blocks
from vocabkit.corpus.records import JSONL, STDIN, TEXT, parse_block
from vocabkit.corpus.streams import Notes
from vocabkit.errors import UserError
from vocabkit.text.languages import is_vietnamese_text

TURN = 64  # lines of a source before it is the next one's turn

EXAMPLES = "examples"  # field of the rows of a word list that holds sentences

HELD_OUT = 10  # one line of so many is kept out of what words are chosen on

LOOK = 1 << 16  # bytes of a source that are read to see whether it can be read

MAX_BYTES = 16 << 20  # of text that is measured: a longer one gives the same shares


def held_out(line: str, *, one_in: int) -> bool:
    """Whether a line is kept for measuring: one in so many, by its CRC-32, so that equal lines are on one
    side.

    >>> [held_out(f"Dòng {n}", one_in=10) for n in range(5)]
    [True, False, False, False, False]
    >>> [held_out(f"Dòng {n}", one_in=4) for n in range(6)]
    [True, False, True, False, False, False]
    """
    return zlib.crc32(line.encode("utf-8")) % one_in == 1  # 0 would be the empty line


def training_lines(text: str) -> str:
    """Return a text without the lines that are kept for measuring what was chosen on the others."""
    return "\n".join(line for line in text.split("\n") if not held_out(line, one_in=HELD_OUT))


def check_readable(texts: Sequence[str | Path]) -> list[Source]:
    """Return the sources that --texts names, which are read several times, after a look at each one's start.

    Raises UserError for what is missing, of no kind that can be read, without texts, or standard input.
    """
    sources = find_sources(texts)
    for source in sources:
        if source.kind == STDIN:
            raise UserError("- (standard input) can be read once, texts are read several times; give a file")
        for _, _, _, bad in itertools.islice(_parsed(source, block_bytes=LOOK, notes=_ignore), 1):
            _refuse(bad)
    return sources


def read_texts(texts: Sequence[str | Path], *, lines_per_text: int = 8) -> Iterator[str]:
    """Yield the texts of corpora in NFC: of each record, and of text files up to lines_per_text lines at a
    time.

    Raises UserError with file and line for what cannot be read.
    """
    for source in find_sources(texts, notes=_ignore):
        lines: list[str] = []
        for kind, found, _, bad in _parsed(source):
            _refuse(bad)
            if kind != TEXT:
                yield from found
                continue
            for line in itertools.chain.from_iterable(io.StringIO(text, newline="\n") for text in found):
                lines.append(line)
                if len(lines) == lines_per_text:
                    yield "".join(lines)
                    lines = []
        if lines:
            yield "".join(lines)


def lines_in_turns(
    sources: Sequence[Source],
    *,
    text_field: str | None = None,
    block_bytes: int | None = None,
    notes: Notes = print_note,
) -> Iterator[str]:
    """Yield the lines of all sources that are not blank, stripped, some of each source in turn.

    Bad records are counted into one note at the end of their source.
    """
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
    first_bad = ""
    count = bad = 0
    for _, texts, seen, wrong in _parsed(source, text_field=text_field, block_bytes=block_bytes, notes=notes):
        count += seen
        bad += len(wrong)
        first_bad = first_bad or next(iter(wrong), "")
        for text in texts:
            yield from (line.strip() for line in text.split("\n") if line.strip())
    if bad:
        notes(f"{bad:,} of {count:,} records of {source.name} give no text, the first is {first_bad}")


def _parsed(
    source: Source,
    *,
    text_field: str | None = None,
    block_bytes: int | None = None,
    notes: Notes = print_note,
) -> Iterator[tuple[str, list[str], int, list[str]]]:
    """The kind of each block of a source, and what parse_block() returns; a word list gives its sentences."""
    at_start = True
    for block in read_blocks(source, text_field=text_field, block_bytes=block_bytes, notes=notes):
        if at_start and block.kind == JSONL and text_field is None and _has_examples(block.data):
            text_field = EXAMPLES
        at_start = False
        yield block.kind, *parse_block(block, text_field=text_field)


def _has_examples(data: Any) -> bool:
    """Whether the first row of a .jsonl block is that of a word list: it has sentences and no text."""
    try:
        row = json.loads(data.split(b"\n", 1)[0])
    except ValueError:
        return False
    return (
        isinstance(row, dict) and EXAMPLES in row and not {"text", "messages", "conversations"} & row.keys()
    )


def _refuse(bad: Sequence[str]) -> None:
    if bad:
        raise UserError(f"{bad[0]}; mend or remove it")


def _ignore(note: str) -> None:
    """For what has been said, or will be."""


def measured_lines(
    sources: Sequence[Source], *, take: Callable[[str], bool], text_field: str | None = None
) -> Counter[str]:
    """Return the Vietnamese lines of a corpus that take() wants, with how often each comes; MAX_BYTES at
    most.

    Raises UserError if there is none.
    """
    found: Counter[str] = Counter()
    size = 0
    for source in sources:
        for block in read_blocks(source, text_field=text_field, notes=_ignore):
            for text in parse_block(block, text_field=text_field)[0]:
                for line in text.split("\n"):
                    if take(line) and is_vietnamese_text(line, share=0.5):
                        found[line] += 1
                        size += len(line.encode("utf-8"))
            if size > MAX_BYTES:
                print_note(f"note: measured on the first {MAX_BYTES >> 20} MB of held-out text")
                return found
    if not found:
        names = ", ".join(source.name for source in sources)
        raise UserError(f"{names}: no Vietnamese line to measure on; give Vietnamese texts with --held_out")
    return found
