"""Characters: their Unicode script, whether they are foreign to a set of scripts, whether they are emoji.

Reads and writes nothing; what Unicode says comes from the regex library.
"""

import unicodedata
from array import array
from bisect import bisect_right
from functools import cache, lru_cache

DEFAULT_SCRIPTS = frozenset({"Latin", "Common", "Inherited"})

# The Script property values of Unicode 18. A script that a newer `regex` knows and this list does not is
# reported as "Other": foreign all the same; a test fails then, so that the list follows.
SCRIPTS = """
Unknown Common Latin Inherited Han Hangul Hiragana Katakana Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian
Avestan Balinese Bamum Bassa_Vah Batak Bengali Beria_Erfe Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid
Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Coptic Cuneiform Cypriot
Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic
Ethiopic Garay Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Gurung_Khema
Hanifi_Rohingya Hanunoo Hatran Hebrew Imperial_Aramaic Inscriptional_Pahlavi Inscriptional_Parthian Javanese
Jurchen Kaithi Kannada Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Kirat_Rai Lao
Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen
Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian
Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham
Ol_Chiki Ol_Onal Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian
Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa
Phoenician Proto_Cuneiform Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Seal Sharada Shavian Siddham
Sidetic SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Sunuwar Syloti_Nagri Syriac Tagalog
Tagbanwa Tai_Le Tai_Tham Tai_Viet Tai_Yo Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta
Todhri Tolong_Siki Toto Tulu_Tigalari Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square
""".split()

_PICTURE = r"\p{Extended_Pictographic}\p{Emoji_Presentation}\p{Emoji_Modifier}\p{Regional_Indicator}\u20E3"
# What may stand inside an emoji sequence but is no picture alone: joiner, variation selectors, tags of flags.
_EMOJI_GLUE = r"\u200D\uFE0E\uFE0F\U000E0020-\U000E007F"


def nfc(text: str) -> str:
    """Return text in composed form, the form every text has inside the toolkit.

    >>> len("ti\\u1ebf\\u0302ng"), nfc("tie\\u0302\\u0301ng") == "ti\\u1ebfng"
    (6, True)
    """
    return unicodedata.normalize("NFC", text)


@cache
def _all_characters() -> str:
    """Every code point in order: the index of a match is the code point (surrogates included for that)."""
    return array("I", range(0x110000)).tobytes().decode("utf-32", "surrogatepass")


@cache
def _script_runs() -> tuple[list[int], list[str]]:
    """(first code points, script names) of the runs of one script, over the whole code space."""
    import regex

    branches = []
    for name in SCRIPTS:
        try:
            regex.compile(rf"\p{{Script={name}}}")
        except regex.error:  # this `regex` is older than the script: its characters are Unknown there
            continue
        branches.append(rf"(?P<{name}>\p{{Script={name}}}+)")
    pattern = regex.compile("|".join(branches) + r"|(?P<Other>.)", regex.DOTALL)
    runs = [(match.start(), str(match.lastgroup)) for match in pattern.finditer(_all_characters())]
    return [start for start, _ in runs], [name for _, name in runs]


def script_names() -> frozenset[str]:
    """Return the names that script_of() can answer and that an allowed set may hold."""
    return frozenset(_script_runs()[1])


@lru_cache(maxsize=65536)
def script_of(char: str) -> str:
    """Return the Unicode script of one character, "Unknown" where it is unassigned or private.

    >>> script_of("ệ"), script_of("字"), script_of("5")
    ('Latin', 'Han', 'Common')
    """
    starts, names = _script_runs()
    return names[bisect_right(starts, ord(char)) - 1]


@cache
def runs_of(allowed: frozenset[str], foreign: bool) -> tuple[list[int], list[int]]:
    """(first, end) code points of the assigned characters that are foreign, or that are allowed."""
    import regex

    scripts = "".join(rf"\p{{Script={name}}}" for name in sorted(allowed))
    # Symbols of the emoji planes count as Common whatever their script (U+1F200 is Hiragana): every emoji
    # shares their first two bytes F0 9F, which must not become the beginning of a foreign character.
    home = rf"[{scripts}{_PICTURE}{_EMOJI_GLUE}[\U0001F000-\U0001FAFF&&\p{{So}}]]"
    combine = "--" if foreign else "&&"
    known = r"\P{Script=Unknown}--\p{Cs}"
    pattern = regex.compile(rf"[[{known}]{combine}{home}]+", regex.V1)
    runs = [match.span() for match in pattern.finditer(_all_characters())]
    return [start for start, _ in runs], [end for _, end in runs]


def foreign_script(char: str, allowed: frozenset[str] = DEFAULT_SCRIPTS) -> str | None:
    """Return the script of a character outside the allowed ones, None for a character that may stay.

    Emoji are never foreign, nor are symbols (category So) of U+1F000–U+1FAFF; unassigned and private code
    points are not either: nobody can say whose they are. µ (U+00B5) is Common, Ω (U+2126) and π are Greek.

    >>> foreign_script("é"), foreign_script("я"), foreign_script("я", DEFAULT_SCRIPTS | {"Cyrillic"})
    (None, 'Cyrillic', None)
    """
    if char.isascii():
        return None if script_of(char) in allowed else script_of(char)
    starts, ends = runs_of(allowed, foreign=True)
    at = bisect_right(starts, ord(char)) - 1
    return script_of(char) if at >= 0 and ord(char) < ends[at] else None


def first_foreign(text: str, allowed: frozenset[str] = DEFAULT_SCRIPTS) -> str | None:
    """Return the script of the first foreign character of text, None where there is none.

    >>> first_foreign("Hà Nội 河内")
    'Han'
    """
    if text.isascii() and allowed >= {"Latin", "Common"}:  # most tokens
        return None
    return next((name for char in text if (name := foreign_script(char, allowed))), None)


@cache
def emoji_codes(pictures_only: bool) -> frozenset[int]:
    import regex

    glue = "" if pictures_only else _EMOJI_GLUE
    return frozenset(match.start() for match in regex.finditer(f"[{_PICTURE}{glue}]", _all_characters()))


def is_emoji(char: str) -> bool:
    """Whether a character is an emoji or stands inside one only (joiner, selector, skin tone, flag, keycap).

    Digits, # and * are not, although a keycap may follow them. © ™ ↔ are: Extended_Pictographic says so.

    >>> is_emoji("😀"), is_emoji("\\ufe0f"), is_emoji("#")
    (True, True, False)
    """
    return ord(char) in emoji_codes(False)


def has_emoji(text: str) -> bool:
    """Whether text holds a character that shows a picture (a joiner or a selector alone does not).

    >>> has_emoji("ok 👍"), has_emoji("\\u200d"), has_emoji("3")
    (True, False, False)
    """
    return not text.isascii() and not emoji_codes(True).isdisjoint(map(ord, text))
