"""What a trimmed model must be able to write: Vietnamese, English, ASCII, signs of typography and emoji.

Reads data/emoji_sequences.txt.xz and data/english_words.txt.xz, both only when asked for; writes nothing.
"""

import lzma
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache

from vocabkit.files import DATA
from vocabkit.text.languages import english_words, vietnamese_syllables

EMOJI_SEQUENCES = DATA / "emoji_sequences.txt.xz"

TONES = "\u0300\u0301\u0303\u0309\u0323"  # as marks of their own, in text that is not composed
VOWEL_MARKS = "\u0302\u0306\u031b"
# Those of Latin-1 (° × § © ± ½ …), and what typing and word processors put beside them.
LATIN_1_SIGNS = "".join(char for char in map(chr, range(0xA0, 0x100)) if not char.isalpha())
SIGNS = (
    "‐‑‒–—―‘’‚‛“”„†‡•‣…‰′″‹›⁄₫€™№℃℉←↑→↓↔⇒⇔−√∞≈≠≤≥∑∏∫∂∇∈∉∀∃∩∪⊂⊃∝∠⊥■□▪●○★☆✓✔✗✘"
    "⁰⁴⁵⁶⁷⁸⁹⁺⁻ⁿ₀₁₂₃₄₅₆₇₈₉⅓⅔⅛①②③④⑤⑥⑦⑧⑨⑩ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ─│┌┐└┘├┤┬┴┼"
)


@cache
def emoji_sequences() -> frozenset[str]:
    """Return every sequence of Unicode's emoji-test.txt 18.0, minimally qualified and unqualified ones too.

    >>> "1\\ufe0f\\u20e3" in emoji_sequences(), "👩\\u200d💻" in emoji_sequences()
    (True, True)
    """
    with lzma.open(EMOJI_SEQUENCES, "rt", encoding="utf-8") as lines:
        return frozenset(lines.read().split("\n")) - {""}


@cache
def vietnamese_letters() -> frozenset[str]:
    """Return the letters of Vietnamese that ASCII lacks, in both cases, composed.

    >>> len(vietnamese_letters())
    134
    """
    forms = (unicodedata.normalize("NFC", base + tone) for base in "aăâeêioôơuưy" for tone in ["", *TONES])
    return frozenset(form for char in (*forms, "đ") for form in (char, char.upper()) if not char.isascii())


@cache
def writing_characters() -> frozenset[str]:
    """Return every character outside ASCII that a trimmed model must be able to write, in any order.

    >>> writing_characters() >= set("ỆđÉé€…→🥳\\u20e3"), "я" in writing_characters()
    (True, False)
    """
    english = {char for word in english_words() if not word.isascii() for char in word + word.upper()}
    emoji = {char for sequence in emoji_sequences() for char in sequence}
    signs = {*TONES, *VOWEL_MARKS, *LATIN_1_SIGNS, *SIGNS}
    return frozenset(char for char in vietnamese_letters() | english | emoji | signs if not char.isascii())


# What a syllable stands after; spaces, quotes and line ends are what tokenizers join to a word.
SEPARATORS = ("", " ", "\n", "(", '"', "-")


def writing_forms() -> Iterator[str]:
    """Yield texts that a trimmed model must be able to write: each syllable and English word that ASCII does
    not hold, in three cases, after each separator; every other character and emoji sequence.
    """
    for word in sorted(word for word in vietnamese_syllables() | english_words() if not word.isascii()):
        for form in dict.fromkeys((word, word.capitalize(), word.upper())):
            yield from (before + form for before in SEPARATORS)
    for some in sorted(writing_characters() | emoji_sequences()):
        yield from (before + some + after for before in ("", " ", "x") for after in ("", "n"))


# First and last code point of what texts of a living script consist of; the rest are rare or historic signs.
MAIN_BLOCKS = {
    "Arabic": (0x600, 0x6FF), "Armenian": (0x530, 0x58F), "Bengali": (0x980, 0x9FF),
    "Bopomofo": (0x3100, 0x312F), "Cyrillic": (0x400, 0x4FF), "Devanagari": (0x900, 0x97F),
    "Ethiopic": (0x1200, 0x137F), "Georgian": (0x10D0, 0x10FF), "Greek": (0x370, 0x3FF),
    "Han": (0x4E00, 0x9FFF), "Hangul": (0xAC00, 0xD7A3), "Hebrew": (0x590, 0x5FF),
    "Hiragana": (0x3040, 0x309F), "Katakana": (0x30A0, 0x30FF), "Khmer": (0x1780, 0x17FF),
    "Lao": (0xE80, 0xEFF), "Mongolian": (0x1800, 0x18AF), "Myanmar": (0x1000, 0x109F),
    "Sinhala": (0xD80, 0xDFF), "Tamil": (0xB80, 0xBFF), "Thai": (0xE00, 0xE7F), "Tibetan": (0xF00, 0xFFF),
}  # fmt: skip


def name_spelled(spelled: Mapping[str, frozenset[str]]) -> str:
    """Return which characters of which scripts, in a line for people.

    >>> name_spelled({"Han": frozenset("⺀"), "Katakana": frozenset("カナ"), "Coptic": frozenset("Ⲁ")})
    'Katakana (2); only rare characters of Han (1); 1 script that is rare itself'
    """

    def listed(scripts: list[str]) -> str:
        return ", ".join(f"{script} ({len(spelled[script]):,})" for script in scripts)

    living = [script for script in spelled if script in MAIN_BLOCKS]
    whole = [
        script
        for script in living
        if any(MAIN_BLOCKS[script][0] <= ord(char) <= MAIN_BLOCKS[script][1] for char in spelled[script])
    ]
    rare = [script for script in living if script not in whole]
    others = len(spelled) - len(living)
    parts = [listed(whole)] * bool(whole) + [f"only rare characters of {listed(rare)}"] * bool(rare)
    if others:
        parts.append(
            "1 script that is rare itself" if others == 1 else f"{others} scripts that are rare themselves"
        )
    return "; ".join(parts)
