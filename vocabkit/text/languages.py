"""Unicode scripts, emoji, Vietnamese syllables, English words: what a token's text is, by rule.

Reads data/english_words.txt.xz (only when an English word is asked for); writes nothing. Importing needs the
standard library alone; `regex`, which carries the Unicode script table, is imported on the first question.
"""

import lzma
from functools import cache
from itertools import islice

from vocabkit.files import DATA
from vocabkit.text.unicode import first_foreign, has_emoji, nfc

CATEGORIES = "english vietnamese emoji alphabet_short alphabet_long ascii_short ascii_long others".split()
LONG = 13  # characters: from here on a letters-only or ASCII token goes into a *_long file

ENGLISH_WORDS = DATA / "english_words.txt.xz"

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


def is_syllable(word: str) -> bool:
    """Whether a word is a Vietnamese syllable in a text: a capital by itself is a mark, no syllable.

    >>> is_syllable("gian"), is_syllable("gians"), is_syllable("A")
    (True, False, False)
    """
    return is_vietnamese_syllable(word) and not (len(word) == 1 and word.isupper())


def is_vietnamese_text(text: str, *, share: float, first: int | None = None) -> bool:
    """Whether more than this share of the words of a text, or of its first few, are Vietnamese syllables in
    any case. English ones have about a fifth: an, do, to, the.

    >>> [is_vietnamese_text(text, share=0.5) for text in ("Hàm softmax trả về xác suất", "Man is born free")]
    [True, False]
    """
    import regex

    found = regex.finditer(r"\p{L}[\p{L}\p{M}]*", text)
    words = [match.group().lower() for match in islice(found, first)]
    known = vietnamese_syllables()
    return sum(word in known for word in words) > share * len(words)
