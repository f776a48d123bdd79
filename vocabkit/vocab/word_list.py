"""Files of words and syllables that are to become tokens, and dictionaries: read and checked. Writes nothing.

A .jsonl file has rows with "word": "thời▁gian" (▁ is the space inside; other fields are ignored) and rows
with "syllable"; a .txt file one word per line; both may be compressed (.xz, .gz, .bz2). Their order is
that in which the words were picked. Between syllables may stand ▁, _ as pyvi writes it, or any spaces.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from vocabkit.errors import UserError, one_line
from vocabkit.files import DATA, read_jsonl, text_lines
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer import bpe
from vocabkit.vocab.new_tokens import CONTROL_SHAPE, SHOWN

WORDS = DATA / "vi_words_chosen.jsonl"
DICTIONARY = DATA / "vi_words_similarity.jsonl"

JOINER = "▁"  # between the syllables of a word, in our files
BETWEEN_SYLLABLES = re.compile(rf"[\s_{JOINER}]+")  # … and in those of others

Entry = TypeVar("Entry")


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


@dataclass(frozen=True)
class WordList:
    """What a file holds, in its order: words as text in NFC, merges of syllables.

    left_out: why each other row is none of them.
    """

    path: Path
    entries: list[str | bpe.Merge]
    left_out: list[str]

    @property
    def words(self) -> list[str]:
        """The words, with spaces inside."""
        return [entry for entry in self.entries if isinstance(entry, str)]

    @property
    def merges(self) -> list[bpe.Merge]:
        """The merges that make the syllables."""
        return [entry for entry in self.entries if not isinstance(entry, str)]

    def first(self, kind: Sequence[Entry], count: int | None, *, flag: str) -> list[Entry]:
        """Return the first count of .words or .merges (all of them if None); UserError for fewer."""
        if count is not None and count > len(kind):
            why = f" ({len(self.left_out):,} rows left out: {self.left_out[0]})" if self.left_out else ""
            what = "words" if flag == "--num_words" else "syllables"
            raise UserError(
                f"{flag} is {count:,}, {self.path} has {len(kind):,} {what}{why}; give at most as many"
            )
        return list(kind[:count])


def read_list(path: Path) -> WordList:
    """Return what a file holds; one bad row, or one that is there twice, never costs the list.

    Raises UserError for a file of another shape, and for one without a single good row.
    """
    if not {".txt", ".jsonl"} & set(path.suffixes):
        raise UserError(f"{path} is neither .jsonl nor .txt, which is how a file of words must be named")
    found = WordList(path, [], [])
    lines: dict[str | bpe.Merge, str] = {}
    for where, line in text_lines(path):
        try:
            entry = _entry(line.strip() if ".txt" in path.suffixes else _row(line, where=where), where=where)
            made = entry if isinstance(entry, str) else ("", "".join(entry))
            if made in lines:
                same = entry if isinstance(entry, str) else "".join(entry)
                raise UserError(f"{where} has {same!r}, as line {lines[made]} does; remove one of the two")
        except UserError as error:
            found.left_out.append(str(error))
            continue
        lines[made] = where.rpartition(":")[2]
        found.entries.append(entry)
    if not found.entries:
        nothing = f'{path} holds no word; give rows such as {{"word": "thời▁gian"}}'
        raise UserError(next(iter(found.left_out), nothing))
    return found


def read_words(path: Path, *, count: int | None = None) -> list[str]:
    """Return the first count words of a file (all of them if None) and print what is left out of it.

    Raises UserError as read_list(), and for fewer words than count.
    """
    found = read_list(path)
    if not found.words:
        raise UserError(f'{path} holds no word; give rows such as {{"word": "thời▁gian"}}')
    say_left_out(found.left_out, of=len(found.entries) + len(found.left_out))
    return found.first(found.words, count, flag="--num_words")


def say_left_out(why: Sequence[str], *, of: int) -> None:
    """Print why rows of a list were left out, the first few spelled out, and how many of how many."""
    for reason in why[:SHOWN]:
        print(f"left out: {one_line(reason)}")
    if why:
        print(f"left out: {len(why):,} of {of:,} rows")


def _row(line: str, *, where: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}; mend or remove the line") from None


def _entry(row: object, *, where: str) -> str | bpe.Merge:
    if not is_syllable_row(row):
        return _checked(row.get("word") if isinstance(row, dict) else row, where=where)
    try:
        return bpe.parse_merge(row.get("merge"))
    except ValueError:
        raise UserError(
            f'{where} has no "merge" of two tokens; give rows such as '
            '{"syllable": " gian", "merge": ["Ġg", "ian"]}'
        ) from None


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


def read_equivalents(given: Path | None, words: Sequence[str]) -> dict[str, list[str]]:
    """Return the dictionary for rows from `english`, the bundled one if none is given; as read_dictionary().

    UserError if it knows none of the words; no words, as of a list of syllables alone, ask for nothing.
    """
    path = given or DICTIONARY
    if not given and not path.is_file():
        raise UserError(
            "--init english needs equivalents: give --dictionary FILE, English TAB Vietnamese or .jsonl"
        )
    known = read_dictionary(path)
    if words and not any(word.lower() in known for word in words):
        raise UserError(f"{path} knows none of the words; give another --dictionary")
    return known


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
