"""The bytes of a plain or compressed file as one stream, and where that stream may be cut between records.

Reads open files; writes nothing. Standard library, and zstandard for .zst when one is met. Reading and
decompressing release the GIL, so several streams can be read by several threads.
"""

import bz2
import functools
import itertools
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from vocabkit.errors import UserError
from vocabkit.text.utf8 import tail_of

Notes = Callable[[str], object]  # told, in one line, what a person should know but need not act on
ARCHIVES = (".xz", ".gz", ".zst", ".bz2")
PIECE = 1 << 20  # bytes read at a time
ARCHIVE_PIECE = 128 << 10  # text comes out several times as large
LONGEST_RECORD = 256 << 20  # bytes; what is longer is no record but a missing line end or quote
TEXT_REACH = 32  # blocks: how far a .txt is searched for a good place to cut
BOM = b"\xef\xbb\xbf"

# A line end before a character that is not white space (Unicode's White_Space and \x1c-\x1f, as str.isspace).
# Tokenizers split white space off in runs: a cut inside a run would change the tokens on both sides of it.
_LINE_END = re.compile(
    rb"\n(?=[^\s\x1c-\x1f])"
    rb"(?!\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)"
)
_LONGEST_SPACE = 3  # bytes of the longest white space in that pattern


class _BrokenArchive(Exception):
    """An archive ends early or is corrupt; the message says which."""


@dataclass(frozen=True)
class _Format:
    """A compression: how its files begin, what decompresses one stream, what that raises."""

    magic: re.Pattern[bytes]
    decoder: Callable[[], Any]
    error: type[Exception]


def _format(ending: str, name: str) -> _Format:
    if ending == ".xz":
        xz = functools.partial(lzma.LZMADecompressor, lzma.FORMAT_XZ)
        return _Format(re.compile(rb"\xfd7zXZ\0"), xz, lzma.LZMAError)
    if ending == ".gz":
        return _Format(re.compile(rb"\x1f\x8b"), functools.partial(zlib.decompressobj, 31), zlib.error)
    if ending == ".bz2":
        return _Format(re.compile(rb"BZh"), bz2.BZ2Decompressor, OSError)
    try:
        import zstandard
    except ImportError:
        raise UserError(f"{name} needs the package zstandard; run: pip install zstandard") from None
    # Large corpora are packed with `zstd --long=31`, which the default window refuses. Parallel compressors
    # begin with a skippable frame.
    zst = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
    return _Format(re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), zst, zstandard.ZstdError)


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    return iter(functools.partial(file.read, size), b"")


def _decompress(file: IO[bytes], *, ending: str, name: str) -> Iterator[bytes]:
    """Yield what an archive of one or more streams holds; _BrokenArchive once all before the damage is out.

    Raises UserError if the file is no such archive.
    """
    form = _format(ending, name)
    decoder = form.decoder()  # None between two streams, where zeros may stand
    for number, data in enumerate(_pieces(file, ARCHIVE_PIECE)):
        if number == 0 and not form.magic.match(data):
            raise UserError(f"{name} is not an {ending} file; give it its real ending, or download it again")
        while data:
            if decoder is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                decoder = form.decoder()
            try:
                text = decoder.decompress(data)
            except form.error:
                raise _BrokenArchive(f"is damaged (corrupt {ending}): counted what comes before") from None
            if text:
                yield text
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data, None
    if decoder is not None:
        raise _BrokenArchive(f"ends early (truncated {ending}): counted what it holds")


class Stream:
    """The uncompressed bytes of one input, read as far as somebody looks.

    buffer holds the bytes that were read and not yet taken: they begin at byte `position` (a byte order mark
    counts, but is passed over) and in line `line` of the stream. An archive that breaks off is reported to
    notes once and sets cut_short: it may end within a record.
    """

    def __init__(self, file: IO[bytes], *, name: str, ending: str, notes: Notes) -> None:
        self.name = name
        self.buffer = bytearray()
        self.position = 0
        self.line = 1
        self.cut_short = False
        self.bytes_read = 0  # of the file, compressed as it is; 0 too where no position is known (a pipe)
        self._file = file
        self._notes = notes
        self._pieces = _decompress(file, ending=ending, name=name) if ending else _pieces(file, PIECE)
        if self.fill(len(BOM)) and self.buffer.startswith(BOM):
            self.take(len(BOM))

    def more(self) -> bool:
        """Read some more into buffer; False at the end. UserError if no record can be as long as it is."""
        if len(self.buffer) > LONGEST_RECORD:
            raise too_long(self.name, self.line)
        try:
            piece = next(self._pieces, b"")
        except _BrokenArchive as error:
            self.cut_short = True
            size = self.position + len(self.buffer)
            self._notes(f"{self.name} {error}, {size:,} bytes of text")
            return False
        self.buffer += piece
        if self._file.seekable():
            self.bytes_read = self._file.tell()
        return bool(piece)

    def fill(self, size: int) -> bool:
        """Read until buffer holds size bytes; False if the stream ends before."""
        while len(self.buffer) < size:
            if not self.more():
                return False
        return True

    def take(self, size: int) -> bytes:
        """Remove the first size bytes from buffer and return them."""
        with memoryview(self.buffer) as view, view[:size] as part:
            data = bytes(part)
        del self.buffer[:size]
        self.position += size
        self.line += data.count(b"\n")
        return data

    def skip_to(self, position: int) -> None:
        """Pass over everything before this position, line ends counted."""
        while self.position < position and self.fill(1):
            self.take(min(position - self.position, len(self.buffer)))


def too_long(name: str, line: int) -> UserError:
    """Return the error for a record that has no end within reach."""
    return UserError(
        f"{name}:{line}: the record that begins here is longer than {LONGEST_RECORD >> 20} MiB; "
        "look for a missing line end or an open quote, and mend it"
    )


# Each of these says how many bytes of a stream's buffer the next block takes, about size; 0: nothing whole is
# left. It depends on nothing but the bytes from here on, never on how they arrive: reading on from the end of
# any block gives the same blocks again.


def end_of_text(stream: Stream, size: int) -> int:
    """Return where a document ends: with the stream, or past size bytes at a line end before a non-space.

    Where none comes within TEXT_REACH * size bytes, the last line end before that, or else a whole character.
    """
    reach = TEXT_REACH * size
    at = size - 1
    ended = False
    while True:
        found = _LINE_END.search(stream.buffer, at)
        if found and found.end() <= reach and (ended or len(stream.buffer) >= found.end() + _LONGEST_SPACE):
            return found.end()
        if ended and len(stream.buffer) <= reach:
            whole = len(stream.buffer)
            return whole - len(tail_of(bytes(stream.buffer[-4:]))) if stream.cut_short else whole
        if ended or len(stream.buffer) >= reach + _LONGEST_SPACE:
            break
        at = max(at, found.start() if found else len(stream.buffer) - 1)
        ended = not stream.more()
    end = stream.buffer.rfind(b"\n", 0, reach) + 1
    if not end:
        end = reach
        while end > reach - 3 and stream.buffer[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
    return end


def end_of_lines(stream: Stream, size: int) -> int:
    """Return the end of the last line that ends within size bytes, else of the first line."""
    if not stream.fill(size) and not stream.cut_short:
        return len(stream.buffer)
    end = stream.buffer.rfind(b"\n", 0, size) + 1
    searched = size
    while not end:
        end = stream.buffer.find(b"\n", searched) + 1
        searched = len(stream.buffer)
        if not end and not stream.more():
            return 0 if stream.cut_short else len(stream.buffer)
    return end


def end_of_rows(stream: Stream, size: int, *, delimiter: str) -> int:
    """Return the end of the last CSV row that ends within size bytes, else of the first row.

    A line end inside quotes ends no row. Quotes open at the beginning of a field only, as in the csv module.
    """
    quoted = re.compile(rb'"(?:(?<=\A")|(?<=[\n%b]"))(?:[^"]+|"")*(?:"|\Z)' % re.escape(delimiter.encode()))
    window = size
    while True:
        ended = not stream.fill(window)
        if ended and not stream.cut_short and window == size:
            return len(stream.buffer)
        right = min(window, len(stream.buffer))
        spans = [match.span() for match in quoted.finditer(stream.buffer, 0, right)]
        edges = [0, *itertools.chain.from_iterable(spans), right]
        outside = list(zip(edges[::2], edges[1::2], strict=True))
        if window == size:
            ends = (stream.buffer.rfind(b"\n", *part) + 1 for part in reversed(outside))
        else:
            ends = (stream.buffer.find(b"\n", *part) + 1 for part in outside)
        if end := next(filter(None, ends), 0):
            return end
        if ended:
            return 0 if stream.cut_short else len(stream.buffer)
        window *= 2


def cut(stream: Stream, size: int, end_of: Callable[[Stream, int], int]) -> Iterator[tuple[int, bytes]]:
    """Yield the rest of a stream in blocks: the number of the first line, and the bytes."""
    while stream.fill(1):
        line, end = stream.line, end_of(stream, size)
        if not end:
            return
        yield line, stream.take(end)
