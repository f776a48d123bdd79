"""Where new words stand in texts: the places that an edited model is measured at. Reads nothing, writes
nothing.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LEFT = 24  # old tokens before a word
RIGHT = 24  # and after it
TEST_PART = 4  # one line in so many is kept for measuring


@dataclass(frozen=True)
class Gap:
    """A place where a word stands in a text: old ids before it, its own, and those after it.

    word: its number among the new words; left begins with a start token.
    """

    word: int
    left: list[int]
    pieces: list[int]
    right: list[int]


@dataclass(frozen=True)
class Line:
    """A line of text in both encodings: its bytes; ids of old tokens, and with new ones, after a start."""

    size: int
    old_ids: list[int]
    new_ids: list[int]


def is_test(line: str) -> bool:
    """Whether a line is kept for measuring: one in four by its CRC-32, so equal lines share a side."""
    return zlib.crc32(line.encode("utf-8")) % TEST_PART == 1  # 0 would be the empty line


def find_gaps(
    lines: Iterable[str],
    words: Sequence[str],
    *,
    old: Any,
    extended: Any,
    start: int,
    per_word: int,
    take: Callable[[str], bool] = is_test,
) -> list[Gap]:
    """Return the first places of each word in lines that take() wants, per_word at most, one in a line.

    old, extended: the tokenizers library's, without the words and with them. Left out are places inside a
    longer word ("con số" in "con sống") and those where the old tokens of the parts are not those of the
    line.
    """
    ids = {extended.token_to_id(f" {word}"): number for number, word in enumerate(words)}
    found: Counter[int] = Counter()
    gaps = []
    for line in dict.fromkeys(lines):
        if not take(line):
            continue
        encoding = extended.encode(line, add_special_tokens=False)
        whole: list[int] | None = None
        for token_id, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            word = ids.get(token_id)
            if word is None or found[word] >= per_word or line[end : end + 1].isalnum():
                continue
            parts = [line[:begin], line[begin:end], line[end:]]
            left, pieces, right = (old.encode(part, add_special_tokens=False).ids for part in parts)
            whole = whole or old.encode(line, add_special_tokens=False).ids
            if left + pieces + right != whole:
                continue
            found[word] += 1
            gaps.append(Gap(word, [start, *left[-LEFT:]], pieces, right[:RIGHT]))
            break
    return gaps
