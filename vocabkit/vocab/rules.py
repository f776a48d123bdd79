"""Counts and text rules → which tokens are wanted, and why.

Reads and writes nothing. Which other tokens BPE needs to make those (the closure) is decided later, from the
tokenizer.
"""

import unicodedata
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache, partial

from vocabkit.errors import UserError
from vocabkit.text.languages import category_of, is_vietnamese_syllable, vietnamese_syllables
from vocabkit.text.unicode import DEFAULT_SCRIPTS, first_foreign, is_emoji, script_names, script_of
from vocabkit.text.utf8 import can_be_allowed, foreign_prefixes, is_emoji_piece, tail_of
from vocabkit.tokenizer.bpe import text_for_people

MIN_COUNT, SURE_COUNT = 1000, 20_000
# English and code live in ASCII, and a crawl of web pages holds little code: ASCII stays from a tenth of
# MIN_COUNT. data/README.md measures what that saves.
ASCII_SHARE = 10
EAST_ASIAN = frozenset({"Han", "Hiragana", "Katakana", "Hangul", "Bopomofo", "Yi"})

ADDED = "added token"
BYTE = "single byte"
EAST_ASIAN_FORM = "East Asian punctuation or full-width form"
FOREIGN_PIECE = "piece of foreign characters only"
EMOJI_PIECE = "piece of an emoji"
OWN_PREFIX = "first bytes of allowed characters only"

RARE_PIECE, COUNTED_PIECE = "rare piece of a character", "counted piece of a character"

SURE, RARE = "counted for sure", "rare"


@dataclass(frozen=True)
class Decision:
    """What becomes of one token, and the first rule that said so; text as in text_for_people()."""

    id: int
    text: str
    count: int
    keep: bool
    reason: str
    category: str


@cache
def _vietnamese_pieces() -> frozenset[str]:
    """The beginnings and ends of Vietnamese syllables that hold a letter outside ASCII ("tiế", "iểu")."""
    syllables = vietnamese_syllables()
    pieces = {syllable[:size] for syllable in syllables for size in range(1, len(syllable) + 1)}
    pieces |= {syllable[at:] for syllable in syllables for at in range(len(syllable))}
    return frozenset(piece for piece in pieces if not piece.isascii())


@cache
def _shared_symbol(char: str, scripts: frozenset[str]) -> bool:
    """Whether a character is no foreign-language Latin letter and is used with an allowed script.

    Script_Extensions says so: the danda is a Common character, but one of Indic texts only.
    """
    import regex

    extensions = "".join(rf"\p{{Script_Extensions={name}}}" for name in sorted(scripts))
    return char.isascii() or (script_of(char) != "Latin" and regex.match(f"[{extensions}]", char) is not None)


def _foreign_reason(token_bytes: bytes, text: str, *, broken: bool, scripts: frozenset[str]) -> str | None:
    """Why a token belongs to other scripts whatever its count, None if it does not.

    text: for people; bytes without a character are ASCII in it, which is never foreign.
    """
    if script := first_foreign(text, scripts):
        return f"script {script}"
    if not text.isascii() and not scripts & EAST_ASIAN:
        if any(unicodedata.east_asian_width(char) in "WF" and not is_emoji(char) for char in text):
            return EAST_ASIAN_FORM
    return FOREIGN_PIECE if broken and not can_be_allowed(token_bytes, scripts) else None


def _used_reason(
    text: str, *, count: int, category: str, min_count: int, scripts: frozenset[str]
) -> str | None:
    """Which of the last rules keeps a token of whole allowed characters that is not counted for sure."""
    word = text.strip()
    if category == "vietnamese" or is_vietnamese_syllable(word):
        return "Vietnamese syllable"
    if category == "emoji":
        return "emoji"
    if category == "english" and count > 0:
        return "English word in use"
    if text.isascii():
        if len(text) <= 2:
            return "ASCII of 2 characters or less"
        return "ASCII" if count >= min_count / ASCII_SHARE else None
    if count < min_count:
        return None
    if len(word) <= 1:
        return "single character"
    if word.lower() in _vietnamese_pieces():
        return "piece of a Vietnamese syllable"
    return "symbols" if all(_shared_symbol(char, scripts) for char in text) else None


def _verdict(
    token_bytes: bytes,
    for_people: str,
    *,
    count: int | None,
    scripts: frozenset[str],
    min_count: int,
    sure_count: int,
) -> tuple[bool, str, str]:
    """(keep, reason, category) of a token that is not added; count None: by the text alone."""
    try:
        text: str | None = token_bytes.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    category = category_of(text)
    if len(token_bytes) == 1:
        return True, BYTE, category
    foreign = _foreign_reason(token_bytes, for_people, broken=text is None, scripts=scripts)
    if foreign:
        return False, foreign, category
    if count is None:
        return True, "allowed scripts", category
    if text is None:
        if is_emoji_piece(token_bytes):
            return True, EMOJI_PIECE, category
        # Trimmed models may not generate the first bytes that foreign characters share: these tokens are
        # then the only way to write a symbol that is no token itself (E2 88 for signs of mathematics).
        if token_bytes == tail_of(token_bytes) and token_bytes not in foreign_prefixes(scripts):
            return True, OWN_PREFIX, category
        counted = count >= min_count
        return counted, COUNTED_PIECE if counted else RARE_PIECE, category
    if count >= sure_count:
        return True, SURE, category
    used = _used_reason(text, count=count, category=category, min_count=min_count, scripts=scripts)
    return used is not None, used or RARE, category


def decide(
    token_bytes: Mapping[int, bytes],
    counts: Mapping[int, int] | None,
    *,
    added: AbstractSet[int] = frozenset(),
    scripts: frozenset[str] = DEFAULT_SCRIPTS,
    min_count: int = MIN_COUNT,
    sure_count: int = SURE_COUNT,
) -> list[Decision]:
    """Decide for each token whether to keep it; the first rule that fits counts.

    token_bytes: id → what the token stands for; added: the ids of added tokens. counts None: the text decides
    alone, every token that is not foreign stays. An id that counts does not hold was never seen.
    data/README.md lists the rules in words. Raises UserError for an unknown script.
    """
    unknown = sorted(scripts - script_names())
    if unknown:
        raise UserError(
            f"{unknown[0]!r} is no Unicode script; give names such as Latin, Greek, Cyrillic "
            f"(known: {', '.join(sorted(script_names()))})"
        )
    verdict = partial(_verdict, scripts=scripts, min_count=min_count, sure_count=sure_count)
    decisions = []
    for token_id, data in token_bytes.items():
        count = None if counts is None else counts.get(token_id, 0)
        text = text_for_people(data)
        found = (True, ADDED, "others") if token_id in added else verdict(data, text, count=count)
        decisions.append(Decision(token_id, text, count or 0, *found))
    return decisions
