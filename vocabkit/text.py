"""Unicode scripts, emoji, Vietnamese syllables, English words: what a token's text is, by rule.

Reads data/english_words.txt.xz (only when an English word is asked for); writes nothing. Importing needs the
standard library alone; `regex`, which carries the Unicode script table, is imported on the first question.
"""

import codecs
import lzma
import unicodedata
from array import array
from bisect import bisect_right
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path

DEFAULT_SCRIPTS = frozenset({"Latin", "Common", "Inherited"})
CATEGORIES = "english vietnamese emoji alphabet_short alphabet_long ascii_short ascii_long others".split()
LONG = 13  # characters: from here on a letters-only or ASCII token goes into a *_long file
ENGLISH_WORDS = Path(__file__).resolve().parent.parent / "data" / "english_words.txt.xz"

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
def _runs_of(allowed: frozenset[str], foreign: bool) -> tuple[list[int], list[int]]:
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
    starts, ends = _runs_of(allowed, foreign=True)
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
    return _prefixes(*_runs_of(allowed, foreign=True))


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
    return _Pieces(*_runs_of(allowed, foreign=False))


def can_be_allowed(token_bytes: bytes, allowed: frozenset[str] = DEFAULT_SCRIPTS) -> bool:
    """Whether some text of assigned allowed characters alone has these bytes in a row.

    >>> can_be_allowed(b"\\xe1\\xbb"), can_be_allowed(b"\\xe4\\xb8"), can_be_allowed("字".encode())
    (True, False, False)
    """
    parts = split_utf8(token_bytes)
    return parts is not None and not first_foreign(parts[1], allowed) and _allowed_pieces(allowed).fit(*parts)


@cache
def _emoji_codes(pictures_only: bool) -> frozenset[int]:
    import regex

    glue = "" if pictures_only else _EMOJI_GLUE
    return frozenset(match.start() for match in regex.finditer(f"[{_PICTURE}{glue}]", _all_characters()))


def is_emoji(char: str) -> bool:
    """Whether a character is an emoji or stands inside one only (joiner, selector, skin tone, flag, keycap).

    Digits, # and * are not, although a keycap may follow them. © ™ ↔ are: Extended_Pictographic says so.

    >>> is_emoji("😀"), is_emoji("\\ufe0f"), is_emoji("#")
    (True, True, False)
    """
    return ord(char) in _emoji_codes(False)


def has_emoji(text: str) -> bool:
    """Whether text holds a character that shows a picture (a joiner or a selector alone does not).

    >>> has_emoji("ok 👍"), has_emoji("\\u200d"), has_emoji("3")
    (True, False, False)
    """
    return not text.isascii() and not _emoji_codes(True).isdisjoint(map(ord, text))


@cache
def _emoji_pieces() -> _Pieces:
    codes = sorted(code for code in _emoji_codes(True) if script_of(chr(code)) != "Unknown")
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


_ONSETS = ("", *"b c ch d đ g gh gi h k kh l m n ng ngh nh p ph qu r s t th tr v x".split())
_RIMES = """
a ac ach ai am an ang anh ao ap at au ay ăc ăm ăn ăng ăp ăt âc âm ân âng âp ât âu ây e ec em en eng eo ep et ê
êch êm ên ênh êp êt êu i ia ich im in inh ip it iu iêc iêm iên iêng iêp iêt iêu y yêm yên yêng yêt yêu o oc oi
om on ong op ot ooc oong oa oac oach oai oam oan oang oanh oao oap oat oay oăc oăm oăn oăng oăt oe oem oen oeo
oet ô ôc ôi ôm ôn ông ôp ôt ơ ơi ơm ơn ơp ơt u ua uc ui um un ung up ut uân uâng uât uây uê uêch uênh uêu uơ
uy uya uych uyn uynh uyp uyt uyu uyên uyêt uôc uôi uôm uôn uông uôt ư ưa ưc ưi ưm ưng ưt ưu ươc ươi ươm ươn
ương ươp ươt ươu
""".split()
# Spellings that the rules below do not make: giếng and giếc are gi + iêng, iêc with one i written; the u of
# uych, uynh, uyt, uôc is the one of qu (quýnh, quốc).
_MORE = (("gi", "êng"), ("gi", "êc"), ("qu", "ych"), ("qu", "ynh"), ("qu", "yt"), ("qu", "ôc"))
_PLACE_NAMES = (
    "đắk",
    "đăk",
    "lắk",
)  # no Vietnamese rime ends in k, but the provinces of Đắk Lắk, Đắk Nông do
_TONES = ("", "\u0300", "\u0301", "\u0303", "\u0309", "\u0323")
_STOP_TONES = ("\u0301", "\u0323")  # a syllable ending in c, ch, p, t is sắc or nặng


def _goes_with(onset: str, rime: str) -> bool:
    """The spelling rules between the two halves of a syllable."""
    front = rime[0] in "eêiy"
    if onset == "":
        return not rime.startswith("iê")  # written yê
    if onset == "qu":
        return rime[0] in "aăâeêiyơ" and not rime.startswith(("ia", "iu", "iê"))
    if rime.startswith("yê"):
        return False
    if onset in ("c", "ng"):
        return not front
    if onset == "g":
        return not front or rime in ("i", "in")  # gì, gìn: the i of gi and of the rime are one letter
    if onset in ("gh", "ngh"):
        return front and rime != "y"
    return front if onset == "k" else not (onset == "gi" and rime[0] in "iy")


def _tone_places(rime: str) -> tuple[int, ...]:
    """Which letters of a rime may carry the tone mark: two only where both are usual (hòa, hoà)."""
    marked = [at for at, letter in enumerate(rime) if letter in "ăâêôơư"]
    if marked:
        return (marked[-1],)
    if rime in ("oa", "oe", "uy"):
        return (0, 1)
    vowels = len(rime.rstrip("cghmnpt"))
    return (1,) if vowels == 3 or (vowels == 2 and len(rime) > 2) else (0,)


@cache
def vietnamese_syllables() -> frozenset[str]:
    """Return every syllable that the spelling rules of Vietnamese allow, in lower case and NFC."""
    pairs = [(onset, rime) for onset in _ONSETS for rime in _RIMES if _goes_with(onset, rime)]
    found = set(_PLACE_NAMES)
    for onset, rime in (*pairs, *_MORE):
        for at in _tone_places(rime):
            for tone in _STOP_TONES if rime.endswith(("c", "ch", "p", "t")) else _TONES:
                found.add(nfc(onset + rime[: at + 1] + tone + rime[at + 1 :]))
    return frozenset(found)


def is_vietnamese_syllable(word: str) -> bool:
    """Whether a word is one well-formed Vietnamese syllable, in lower, Title or UPPER case.

    The rules of spelling decide, not a list of words in use: "nhoác" passes. Both tone placements of oa, oe,
    uy do. A syllable without a mark counts ("trong"), unless the rules show that it lost one ("mot").

    >>> [is_vietnamese_syllable(word) for word in ("tiếng", "Hoà", "HÒA", "cuả", "kông", "mot")]
    [True, True, True, False, False, False]
    """
    word = nfc(word)
    lower = word.lower()
    usual_case = word in (lower, word.upper()) or word == lower[:1].upper() + lower[1:]
    return usual_case and lower in vietnamese_syllables()


@cache
def english_words() -> frozenset[str]:
    """Return the bundled English words (lower case, a few with accents); see data/README.md."""
    with lzma.open(ENGLISH_WORDS, "rt", encoding="utf-8") as lines:
        return frozenset(lines.read().split())


def is_english_word(word: str) -> bool:
    """Whether a word is in the English word list, in any case.

    >>> is_english_word("Colours"), is_english_word("getCount")
    (True, False)
    """
    return nfc(word).lower() in english_words()


def category_of(text: str | None) -> str:
    """Return the file (one of CATEGORIES) that a token with this text goes into; None: not valid UTF-8 alone.

    Spaces around the text count in its length only. English goes first where a word is also Vietnamese
    ("song"). alphabet_*: ASCII letters that are no word, spaces; ascii_*: other ASCII; others: Latin of other
    languages, symbols, pieces of characters, foreign scripts.

    >>> [category_of(text) for text in (" the", " việc", "🙂", "tion", "getElementById", "();", "ñ", None)]
    ['english', 'vietnamese', 'emoji', 'alphabet_short', 'alphabet_long', 'ascii_short', 'others', 'others']
    """
    if text is None:
        return "others"
    word = text.strip()
    if is_english_word(word):
        return "english"
    if is_vietnamese_syllable(word):
        return "vietnamese"
    if has_emoji(text) and first_foreign(text) is None:
        return "emoji"
    if not text.isascii():
        return "others"
    kind = "alphabet" if not word or word.isalpha() else "ascii"
    return f"{kind}_{'long' if len(text) >= LONG else 'short'}"
