"""Pieces of UTF-8: tokens that begin or end inside a character, and what such a piece can become.

Reads and writes nothing. Judged by bytes, never by decoding with replacement characters.
"""

import codecs
from collections.abc import Iterable
from functools import cache
from itertools import chain

from vocabkit.text.unicode import (
    DEFAULT_SCRIPTS,
    emoji_codes,
    first_foreign,
    foreign_script,
    is_emoji,
    runs_of,
    script_of,
)


def _prefixes(starts: list[int], ends: list[int]) -> frozenset[bytes]:
    """Every proper, non-empty prefix of the UTF-8 bytes of the characters of some runs."""
    found: set[bytes] = set()
    for start, end in zip(starts, ends, strict=True):
        # All characters of a block of 64 share every byte but the last: one character stands for the block.
        for block in range(start >> 6, (end - 1 >> 6) + 1):
            encoded = chr(max(start, block << 6)).encode("utf-8")
            found.update(encoded[:size] for size in range(1, len(encoded)))
    return frozenset(found)


@cache
def foreign_prefixes(allowed: frozenset[str] = DEFAULT_SCRIPTS) -> frozenset[bytes]:
    """Return every proper, non-empty prefix of the UTF-8 bytes of any assigned foreign character.

    A token whose tail_of() is among them can begin a foreign character.

    >>> b"\\xe4" in foreign_prefixes(), b"\\xc3" in foreign_prefixes()
    (True, False)
    """
    return _prefixes(*runs_of(allowed, foreign=True))


def _can_begin(tail: bytes) -> bool:
    """Whether these bytes are a proper prefix of some well-formed UTF-8 character."""
    # The decoder knows that E0, F0 and F4 take fewer second bytes than others, but waits for the third byte
    # before it refuses a surrogate (ED A0 and up).
    if tail[:1] == b"\xed" and tail[1:2] >= b"\xa0":
        return False
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(tail) == ""
    except UnicodeDecodeError:
        return False


def tail_of(token_bytes: bytes) -> bytes:
    """Return the incomplete UTF-8 character that a byte string ends with, b"" if it ends with none.

    >>> tail_of(b"a\\xe1\\xbb"), tail_of("ệ".encode()), tail_of(b"\\xbb")
    (b'\\xe1\\xbb', b'', b'')
    """
    for size in range(1, min(3, len(token_bytes)) + 1):
        if (byte := token_bytes[-size]) & 0xC0 != 0x80:
            tail = token_bytes[-size:]
            return tail if byte >= 0x80 and _can_begin(tail) else b""
    return b""


def split_utf8(token_bytes: bytes) -> tuple[bytes, str, bytes] | None:
    """Cut a piece of UTF-8 into (end of a character, whole characters, beginning of one).

    None where no text has these bytes in a row. A token of continuation bytes alone is all end: it may also
    be the middle of a character.

    >>> split_utf8(b"\\xbb\\x87t \\xc4")
    (b'\\xbb\\x87', 't ', b'\\xc4')
    """
    head_size = 0
    while head_size < len(token_bytes) and token_bytes[head_size] & 0xC0 == 0x80:
        head_size += 1
    head, rest = token_bytes[:head_size], token_bytes[head_size:]
    tail = tail_of(rest)
    try:
        text = rest[: len(rest) - len(tail)].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return (head, text, tail) if head_size <= 3 else None


class _Pieces:
    """Proper pieces of the UTF-8 bytes of some characters; inner ones are suffixes and middles."""

    def __init__(self, starts: list[int], ends: list[int]) -> None:
        self.prefixes = _prefixes(starts, ends)
        codes = chain.from_iterable(map(range, starts, ends))
        encoded = [chr(code).encode("utf-8") for code in codes if code >= 0x80]
        self.suffixes = {char[first:] for char in encoded for first in range(1, len(char))}
        self.inner = {piece[:size] for piece in self.suffixes for size in range(1, len(piece) + 1)}

    def fit(self, head: bytes, text: str, tail: bytes) -> bool:
        """Whether the broken characters at both sides of text can be among these characters."""
        ends = self.suffixes if text or tail else self.inner
        return (not head or head in ends) and (not tail or tail in self.prefixes)


@cache
def _allowed_pieces(allowed: frozenset[str]) -> _Pieces:
    return _Pieces(*runs_of(allowed, foreign=False))


def can_be_allowed(token_bytes: bytes, allowed: frozenset[str] = DEFAULT_SCRIPTS) -> bool:
    """Whether some text of assigned allowed characters alone has these bytes in a row.

    >>> can_be_allowed(b"\\xe1\\xbb"), can_be_allowed(b"\\xe4\\xb8"), can_be_allowed("字".encode())
    (True, False, False)
    """
    parts = split_utf8(token_bytes)
    return parts is not None and not first_foreign(parts[1], allowed) and _allowed_pieces(allowed).fit(*parts)


@cache
def _emoji_pieces() -> _Pieces:
    codes = sorted(code for code in emoji_codes(True) if script_of(chr(code)) != "Unknown")
    return _Pieces(codes, [code + 1 for code in codes])


def is_emoji_piece(token_bytes: bytes) -> bool:
    """Whether a token that is not valid UTF-8 alone is a piece of emoji: all it touches are emoji and spaces.

    >>> is_emoji_piece(b" \\xf0\\x9f\\x98"), is_emoji_piece(b"\\xe4\\xb8"), is_emoji_piece("😀".encode())
    (True, False, False)
    """
    parts = split_utf8(token_bytes)
    if parts is None or not (parts[0] or parts[2]):
        return False
    return all(map(is_emoji, parts[1].strip(" "))) and _emoji_pieces().fit(*parts)


def spelled_foreign(
    tokens: Iterable[bytes], allowed: frozenset[str] = DEFAULT_SCRIPTS
) -> dict[str, frozenset[str]]:
    r"""Return script → the foreign characters that some sequence of these tokens spells: all are searched.

    A finite automaton: its state is the unfinished character with which a text ends. From each state that
    can be reached, each token finishes the character, goes on with it, or breaks it.

    >>> {script: len(chars) for script, chars in spelled_foreign([b"a\xd0", b"\xbfx", b"\x90"]).items()}
    {'Cyrillic': 2}
    """
    prefixes = foreign_prefixes(allowed)
    found: set[str] = set()
    ends: list[set[bytes]] = [
        set() for _ in range(4)
    ]  # first n continuation bytes of tokens: what states meet
    inner: set[bytes] = set()  # tokens of one or two continuation bytes alone, after which a state goes on
    fresh: set[bytes] = set()
    for data in tokens:
        if data.isascii():
            continue
        size = next((at for at, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))
        for first in range(1, min(size, 3) + 1):
            ends[first].add(data[:first])
        if size == len(data):
            inner.add(data)
        else:
            found.update(data[size:].decode("utf-8", "ignore"))
            fresh.add(tail_of(data))
    fresh &= prefixes
    seen: set[bytes] = set()
    while fresh:
        seen |= fresh
        after: set[bytes] = set()
        for state in fresh:
            lacks = 1 + (state[0] >= 0xE0) + (state[0] >= 0xF0) + 1 - len(state)
            found.update(b"".join(state + end for end in ends[lacks]).decode("utf-8", "ignore"))
            after.update(state + some for some in inner if len(some) < lacks)
        fresh = (after & prefixes) - seen
    scripts: dict[str, set[str]] = {}
    for char in found:
        if script := foreign_script(char, allowed):
            scripts.setdefault(script, set()).add(char)
    return {script: frozenset(chars) for script, chars in sorted(scripts.items())}
