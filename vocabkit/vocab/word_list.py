"""Files of words and syllables that are to become tokens, and dictionaries: read and checked. Writes nothing.

A .jsonl file has rows with "word": "thời▁gian" (▁ is the space inside; other fields are ignored) and rows
with "syllable"; a .txt file one word per line; both may be compressed (.xz, .gz, .bz2). Their order is
that in which the words were picked. Between syllables may stand ▁, _ as pyvi writes it, or any spaces.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from vocabkit.errors import UserError
from vocabkit.files import DATA, read_jsonl, text_lines
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer import bpe
from vocabkit.vocab.new_tokens import CONTROL_SHAPE

WORDS = DATA / "vi_words_chosen.jsonl"
DICTIONARY = DATA / "vi_words_similarity.jsonl"

JOINER = "▁"  # between the syllables of a word, in our files
BETWEEN_SYLLABLES = re.compile(rf"[\s_{JOINER}]+")  # … and in those of others


def is_syllable_row(row: object) -> TypeGuard[dict[str, Any]]:
    """Whether a row of a file of words is of a syllable instead."""
    return isinstance(row, dict) and "syllable" in row


def new_token(row: Mapping[str, Any]) -> str | bpe.Merge:
    """Return what a row makes a token of: the content of an added token, or the two tokens of a merge.

    >>> new_token({"word": "thời▁gian"}), new_token({"syllable": " gian", "merge": ["Ġg", "ian"]})
    (' thời gian', ('Ġg', 'ian'))
    """
    return (row["merge"][0], row["merge"][1]) if "merge" in row else content_of(row)


def content_of(row: Mapping[str, Any]) -> str:
    """Return a row's word as an added token.

    >>> content_of({"word": "thời▁gian"})
    ' thời gian'
    """
    return " " + text_of(row["word"])


def text_of(word: str) -> str:
    """Return a row's word as it stands in a text.

    >>> text_of("thời▁gian"), text_of("thời_gian"), text_of(" thời  gian ")
    ('thời gian', 'thời gian', 'thời gian')
    """
    return BETWEEN_SYLLABLES.sub(" ", word).strip()


def read_words(path: Path, *, count: int | None = None) -> list[str]:
    """Return the first count words of a file (all of them if None), as text in NFC with spaces inside.

    Raises UserError for a file of another shape, what is no word, a word that is there twice (in any Unicode
    form), or fewer words than count.
    """
    words: dict[str, str] = {}
    for where, row in _rows(path):
        if is_syllable_row(row):
            continue
        word = _checked(row.get("word") if isinstance(row, dict) else row, where=where)
        if word in words:
            raise UserError(f"{where} has {word!r}, as line {words[word]} does; remove one of the two")
        words[word] = where.rpartition(":")[2]
    if not words and count != 0:
        raise UserError(f'{path} holds no word; give rows such as {{"word": "thời▁gian"}}')
    if count is not None and count > len(words):
        raise UserError(f"--num_words is {count:,}, {path} has {len(words):,} words; give at most as many")
    return list(words)[:count]


def read_syllables(path: Path, *, count: int) -> list[bpe.Merge]:
    """Return the merges of the first count syllables of a file.

    Raises UserError for a row of another shape, a syllable that is there twice, or fewer than count.
    """
    made: dict[str, str] = {}
    merges: list[bpe.Merge] = []
    for where, row in _rows(path):
        if len(merges) == count:
            break
        if not is_syllable_row(row):
            continue
        try:
            merge = bpe.parse_merge(row.get("merge"))
        except ValueError:
            raise UserError(
                f'{where} has no "merge" of two tokens; give rows such as '
                '{"syllable": " gian", "merge": ["Ġg", "ian"]}'
            ) from None
        token = "".join(merge)
        if token in made:
            raise UserError(f"{where} makes {token!r}, as line {made[token]} does; remove one of the two")
        made[token] = where.rpartition(":")[2]
        merges.append(merge)
    if len(merges) < count:
        raise UserError(
            f"--syllables is {count:,}, {path} has {len(merges):,} syllables; give at most as many, or "
            "choose more: build_vi_words.py --choose N --syllables M"
        )
    return merges


def count_rows(path: Path, *, first: int | None = None) -> tuple[int, int]:
    """Return how many of the first rows of a file (all if None) are words, and how many are syllables.

    Raises UserError as read_words() does.
    """
    read_words(path, count=0)  # what is wrong with it is said first
    rows = [row for _, row in islice(_rows(path), first)]
    if not rows:
        raise UserError(f'{path} holds no word; give rows such as {{"word": "thời▁gian"}}')
    syllables = sum(map(is_syllable_row, rows))
    return len(rows) - syllables, syllables


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """("FILE:LINE", row) of a .jsonl file, ("FILE:LINE", word) of a .txt file."""
    if ".txt" in path.suffixes:
        yield from ((where, line.strip()) for where, line in text_lines(path))
    elif ".jsonl" in path.suffixes:
        yield from read_jsonl(path)
    else:
        raise UserError(f"{path} is neither .jsonl nor .txt, which is how a file of words must be named")


def _checked(word: object, *, where: str) -> str:
    if not isinstance(word, str):
        raise UserError(f'{where} has no "word" string; give rows such as {{"word": "thời▁gian"}}')
    text = text_of(nfc(word))
    if not all(text.split(" ")) or not text.isprintable():
        raise UserError(
            f"{where} has the word {word!r}, expected syllables with one ▁ between two, such as 'thời▁gian'"
        )
    if CONTROL_SHAPE.fullmatch(text):
        raise UserError(f"{where} has the word {word!r}, which looks like a control token; remove it")
    return text


def read_dictionary(path: Path) -> dict[str, list[str]]:
    """Return Vietnamese word → English equivalents, words in NFC and lower case.

    A .jsonl file has rows {"word": "thời▁gian", "en": ["time", "period"]}; any other has lines English TAB
    Vietnamese, one pair each, as the dictionaries of WECHSEL have. UserError for a line of another shape.
    """
    found: dict[str, list[str]] = {}
    for where, word, equivalents in _pairs(path):
        if not isinstance(word, str) or not word or not isinstance(equivalents, list):
            raise UserError(
                f'{where} is neither a row such as {{"word": "thời▁gian", "en": ["time"]}} nor '
                "English TAB Vietnamese; mend or remove the line"
            )
        if not all(isinstance(equivalent, str) and equivalent.strip() for equivalent in equivalents):
            raise UserError(f"{where} has an equivalent that is no word; mend or remove the line")
        known = found.setdefault(text_of(nfc(word)).lower(), [])
        known += [e.strip() for e in equivalents if e.strip() not in known]
    if not found:
        raise UserError(f"{path} holds no pair of words; give another --dictionary")
    return found


def _pairs(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """("FILE:LINE", word, equivalents) of each line of a dictionary; None for what a row does not have."""
    if ".jsonl" in path.suffixes:
        for where, row in read_jsonl(path):
            yield where, *((row.get("word"), row.get("en")) if isinstance(row, dict) else (None, None))
        return
    for where, line in text_lines(path):
        english, _, word = line.partition("\t")
        yield where, word, [english]
