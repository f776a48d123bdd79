"""Rows that explain a word: equivalents, neighbours, example sentences; what is wrong with them.

Reads .jsonl files of such rows (data/vi_words_similarity.jsonl is one), writes nothing. A row:

    {"word": "thời▁gian", "en": ["time", "period"], "en_one_token": ["time", "period"], "near": ["lúc",
    "giờ"], "examples": [three sentences], "examples_en": [their translations]}

"en_one_token" are those of "en" that, with a space before them, are one token of a base vocabulary. The
sentences are what a new token is trained on, so each must hold the text that the token matches, " thời gian",
at places that differ.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabkit.errors import UserError, described
from vocabkit.files import parse_json, text_lines
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.encoder import encoded
from vocabkit.vocab.word_list import text_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KEYS = ("word", "en", "en_one_token", "near", "examples", "examples_en")
SIZES = {"en": (1, 5), "near": (2, 6), "examples": (3, 3), "examples_en": (3, 3)}  # least and most entries
MIN_WORDS = {"examples": 8, "examples_en": 5}

SENTENCE_MARKS, CLOSING = ".!?…", "”’\"')»]"  # a sentence ends with one of the first, then perhaps the second
SHOWN = 60  # characters of a sentence that a finding shows


def word_index(sentence: str, word: str) -> int | None:
    """Return how many words stand before the first place where a word's token fires and nothing goes on.

    None where there is no such place: the token needs a space before it, and a letter or a combining mark
    after it would make it a part of another word.

    >>> word_index("Tôi có thời gian.", "thời▁gian"), word_index("Thời gian trôi.", "thời▁gian")
    (2, None)
    """
    content = " " + text_of(word)
    at = sentence.find(content)
    while at >= 0:
        after = sentence[at + len(content) :][:1]
        if not after or unicodedata.category(after)[0] not in "LM":
            return len(sentence[:at].split())
        at = sentence.find(content, at + 1)
    return None


def one_token(equivalents: Sequence[str], encoder: "Tokenizer") -> list[str]:
    """Return those words that, with a space before them, are one token."""
    found = encoded(encoder, [f" {word}" for word in equivalents])
    return [word for word, encoding in zip(equivalents, found, strict=True) if len(encoding.ids) == 1]


def with_one_token(row: Mapping[str, Any], encoder: "Tokenizer | None") -> dict[str, Any]:
    """Return a row with "en_one_token" made new, its keys in order; without it if there is no encoder."""
    if encoder is None:
        return {key: row[key] for key in KEYS if key != "en_one_token"}
    whole = {**row, "en_one_token": one_token(row["en"], encoder)}
    return {key: whole[key] for key in KEYS}


class RowChecker:
    """Says what is wrong with rows, one after another: some rules are about all rows together.

    words: those that may have a row, any form of ▁ and Unicode (None: any). encoder: the tokenizer that
    "en_one_token" is about; None: not known, then the key may be missing.
    """

    def __init__(self, *, words: Iterable[str] | None = None, encoder: "Tokenizer | None" = None) -> None:
        self._allowed = None if words is None else {text_of(nfc(word)) for word in words}
        self._encoder = encoder
        self._words: dict[str, str] = {}  # word → the row it has, for people
        self._sentences: dict[str, str] = {}  # in lower case → the row it stands in

    def add(self, row: Any, where: str) -> None:
        """Remember a row, well-formed or not: no later one may have its word or its sentences."""
        word = row.get("word") if isinstance(row, dict) else None
        if isinstance(word, str):
            self._words.setdefault(word, where)
            for sentence in row.get("examples") if isinstance(row.get("examples"), list) else []:
                self._sentences.setdefault(str(sentence).lower(), where)

    def problems(self, row: Any) -> Iterator[str]:
        """Yield what is wrong with a row beside those added before, a sentence each."""
        if not isinstance(row, dict):
            yield f"is a {type(row).__name__}, expected an object"
            return
        keys = [key for key in KEYS if key in row or key != "en_one_token" or self._encoder is not None]
        if list(row) != keys:
            yield f"has the keys {list(row)}, expected {keys}"
        word = row.get("word")
        if not isinstance(word, str):
            yield f'"word" is {word!r}, expected a string such as "thời▁gian"'
            return
        yield from self._word_problems(word)
        for key in SIZES:
            if key in row:
                yield from _list_problems(key, row[key])
        if is_strings(row.get("en")) and "en_one_token" in row:
            yield from self._one_token_problems(row["en"], row["en_one_token"])
        if is_strings(row.get("near")):
            for entry in row["near"]:
                if entry.lower() == text_of(word).lower():
                    yield f'"near" holds {entry!r}, the word itself, expected words near to it'
        if is_strings(row.get("examples")):
            yield from self._example_problems(word, row["examples"])

    def _word_problems(self, word: str) -> Iterator[str]:
        if not all(word.split("▁")) or word != "".join(word.split()) or not word.isprintable():
            yield f'"word" is {word!r}, expected syllables with one ▁ between two, such as "thời▁gian"'
        if word != nfc(word):
            yield f'"word" is {ascii(word)}, expected its composed form (NFC) {ascii(nfc(word))}'
        if self._allowed is not None and text_of(nfc(word)) not in self._allowed:
            yield f'"word" is {word!r}, which is none of the {len(self._allowed):,} words of the list'
        if word in self._words:
            yield f'"word" is {word!r}, which has a row already: {self._words[word]}'

    def _one_token_problems(self, equivalents: list[str], marked: Any) -> Iterator[str]:
        if self._encoder is not None:
            expected = one_token(equivalents, self._encoder)
        elif is_strings(marked):
            expected = [word for word in equivalents if word in marked]
        else:
            expected = equivalents
        if marked != expected:
            yield f'"en_one_token" is {marked!r}, expected {expected!r} of "en" {equivalents!r}'

    def _example_problems(self, word: str, examples: list[str]) -> Iterator[str]:
        places = [word_index(sentence, word) for sentence in examples]
        for number, (sentence, place) in enumerate(zip(examples, places, strict=True), 1):
            if place is None:
                yield (
                    f"example {number} lacks {' ' + text_of(word)!r} (a space before it, no letter after it, "
                    f"upper and lower case as here): {_excerpt(sentence)}"
                )
            if not sentence.rstrip(CLOSING).endswith(tuple(SENTENCE_MARKS)):
                yield f"example {number} ends with {sentence[-1:]!r}, expected one of {SENTENCE_MARKS}"
            if (known := self._sentences.get(sentence.lower())) is not None:
                yield f"example {number} stands in another row, {known}: {_excerpt(sentence)}"
        if len(places) > 1 and None not in places and len(set(places)) == 1:
            yield f"all examples have the word after {places[0]} others, expected different places"
        first = {sentence.split()[0].lower() for sentence in examples if sentence.strip()}
        if len(examples) > 1 and len(first) == 1:
            yield f"all examples begin with {first.pop()!r}, expected different words"


def is_strings(value: Any) -> bool:
    """Whether a value is a list of strings."""
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _list_problems(key: str, entries: Any) -> Iterator[str]:
    """What is wrong with one of the lists, whatever the word is."""
    low, high = SIZES[key]
    if not is_strings(entries):
        yield f'"{key}" is {entries!r}, expected a list of strings'
        return
    if not low <= len(entries) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        yield f'"{key}" has {len(entries)} entries, expected {wanted}'
    if len({entry.lower() for entry in entries}) < len(entries):
        yield f'"{key}" has an entry twice: {[_excerpt(entry) for entry in entries]}, expected different ones'
    for entry in entries:
        if entry != " ".join(entry.split()) or not entry or not entry.isprintable():
            yield f'"{key}" has {_excerpt(entry)}, expected text with single spaces inside and none around it'
        if entry != nfc(entry):
            yield f'"{key}" has {ascii(entry)[:SHOWN]}, expected its composed form (NFC)'
        if (count := len(entry.split())) < MIN_WORDS.get(key, 0):
            yield f'"{key}" has {_excerpt(entry)} with {count} words, expected {MIN_WORDS[key]} or more'


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def check_explanations(
    rows: Iterable[Any],
    *,
    words: Iterable[str] | None = None,
    encoder: "Tokenizer | None" = None,
    name: object = "row",
) -> list[str]:
    """Return the findings of rows (see RowChecker), a line each: "FILE:LINE: word: what is wrong"."""
    checker = RowChecker(words=words, encoder=encoder)
    findings = []
    for number, row in enumerate(rows, 1):
        where = f"{name}:{number}"
        word = row.get("word") if isinstance(row, dict) else None
        problems = [row.problem] if isinstance(row, Unreadable) else checker.problems(row)
        findings += [f"{where}: {word or '?'}: {problem}" for problem in problems]
        checker.add(row, where)
    return findings


@dataclass(frozen=True)
class Unreadable:
    """Stands for a line that is no JSON."""

    problem: str


def read_explanations(path: Path) -> list[Any]:
    """Return what each line of a file holds, Unreadable where it is no JSON; UserError if it is no text."""
    rows: list[Any] = []
    for _, line in text_lines(path):
        try:
            rows.append(parse_json(line))
        except json.JSONDecodeError as error:
            rows.append(Unreadable(f"is not JSON: {error.msg}, at character {error.pos + 1}"))
        except (ValueError, RecursionError) as error:
            rows.append(Unreadable(described(error, "it")))
    if not rows:
        raise UserError(f'{path} holds no row; give rows such as {{"word": "thời▁gian", "en": ["time"], …}}')
    return rows
