"""vocabkit/text/languages.py against brute force over the whole code space, and against real Vietnamese
text.
"""

import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tiny import ROOT

from vocabkit.text import unicode
from vocabkit.text.languages import (
    CATEGORIES,
    category_of,
    english_words,
    is_english_word,
    is_vietnamese_syllable,
    vietnamese_syllables,
)
from vocabkit.text.unicode import (
    DEFAULT_SCRIPTS,
    foreign_script,
    has_emoji,
    is_emoji,
    script_names,
    script_of,
)
from vocabkit.text.utf8 import can_be_allowed, foreign_prefixes, is_emoji_piece, split_utf8, tail_of

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]


@cache
def assigned() -> list[str]:
    """Every character that has a script."""
    return regex.findall(r"\P{Script=Unknown}", "".join(map(chr, CODE_POINTS)))


@cache
def all_prefixes() -> frozenset[bytes]:
    """Every proper prefix of every UTF-8 character, by brute force."""
    return frozenset(
        encoded[:size]
        for encoded in map(str.encode, map(chr, CODE_POINTS))
        for size in range(1, len(encoded))
    )


def test_import_needs_only_the_standard_library() -> None:
    code = "import sys, vocabkit.text; print('regex' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_every_script_of_this_regex_has_its_name() -> None:
    assert "Other" not in script_names()
    assert {"Latin", "Han", "Thai", "Unknown"} <= script_names()


@given(st.characters(exclude_categories=["Cs"]))
def test_script_is_the_script_property(char: str) -> None:
    assert regex.fullmatch(rf"\p{{Script={script_of(char)}}}", char)


@pytest.mark.parametrize(
    ("char", "script"),
    [
        *((char, None) for char in "aé5 ệ₫€“…\u0301\u00b5\U0001f600\U0001f200\ue000\u0378"),
        ("字", "Han"),
        ("я", "Cyrillic"),
        ("ก", "Thai"),
        ("ع", "Arabic"),
        ("한", "Hangul"),
        ("か", "Hiragana"),
        ("Ω", "Greek"),
        ("\u2126", "Greek"),
    ],
)
def test_foreign_script(char: str, script: str | None) -> None:
    assert foreign_script(char) == script


def test_foreign_means_an_assigned_character_of_another_script() -> None:
    """Over the whole code space; the exceptions are emoji and the one Hiragana symbol of the emoji planes."""
    names = {script: foreign_script(chr(0x4E00), frozenset({script})) for script in ("Han", "Latin")}
    assert names == {"Han": None, "Latin": "Han"}
    exceptions = [
        char for char in assigned() if (script_of(char) in DEFAULT_SCRIPTS) != (foreign_script(char) is None)
    ]
    assert exceptions == ["\U0001f200"]
    unassigned = set(map(chr, CODE_POINTS[::13])) - set(assigned())
    assert not any(map(foreign_script, unassigned))


@pytest.mark.parametrize("extra", [set(), {"Cyrillic", "Greek"}])
def test_foreign_prefixes_by_brute_force(extra: set[str]) -> None:
    allowed = DEFAULT_SCRIPTS | extra
    expected = set()
    for char in assigned():
        if foreign_script(char, allowed):
            encoded = char.encode()
            expected.update(encoded[:size] for size in range(1, len(encoded)))
    assert foreign_prefixes(allowed) == expected


def test_emoji_and_vietnamese_can_be_begun() -> None:
    foreign = foreign_prefixes()
    assert b"\xf0\x9f" not in foreign
    for char in "đăâêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ":
        assert char.encode()[:-1] not in foreign or len(char.encode()) == 1


def test_tail_of_every_prefix_and_of_every_character() -> None:
    for prefix in all_prefixes():
        assert tail_of(prefix) == prefix == tail_of(b"x" + prefix)
    for code in CODE_POINTS[::31]:
        assert tail_of(chr(code).encode()) == b""


def test_tail_of_every_pair_of_bytes() -> None:
    for pair in (bytes([first, second]) for first in range(256) for second in range(256)):
        tails = [pair[at:] for at in range(2) if pair[at:] in all_prefixes()]
        assert tail_of(pair) == (tails[0] if tails else b"")


@given(st.binary(max_size=6))
def test_tail_of_any_bytes(data: bytes) -> None:
    tails = [data[at:] for at in range(len(data)) if data[at:] in all_prefixes()]
    assert tail_of(data) == (tails[0] if tails else b"")


@given(st.text(max_size=4), st.integers(0, 16), st.integers(0, 16))
def test_split_utf8_puts_together_again(words: str, start: int, size: int) -> None:
    data = words.encode()[start : start + size]
    parts = split_utf8(data)
    assert parts is not None
    assert parts[0] + parts[1].encode() + parts[2] == data


@pytest.mark.parametrize("data", [b"\xff", b"a\xc0b", b"\xe4a", b"\x80\x80\x80\x80", b"\xed\xa0\x80"])
def test_split_utf8_refuses_what_no_text_has(data: bytes) -> None:
    assert split_utf8(data) is None
    assert not can_be_allowed(data)
    assert not is_emoji_piece(data)


def test_pieces_of_characters_by_brute_force() -> None:
    """A broken character alone is allowed exactly if some assigned character that may stay has it inside."""
    found: dict[bool, set[bytes]] = {True: set(), False: set()}
    for char in assigned()[0x80:]:
        encoded = char.encode()
        pieces = {encoded[a:b] for a in range(len(encoded)) for b in range(a + 1, len(encoded) + 1)}
        found[foreign_script(char) is None] |= pieces - {encoded}
    assert all(map(can_be_allowed, found[True]))
    only_foreign = found[False] - found[True]
    assert b"\xe4\xb8" in only_foreign
    assert not any(map(can_be_allowed, only_foreign))


@given(st.text(st.sampled_from("aệ “€😀ngờ"), min_size=1), st.integers(0, 9), st.integers(1, 9))
def test_every_cut_of_allowed_text_is_allowed(words: str, start: int, size: int) -> None:
    assert can_be_allowed(words.encode()[start : start + size])


@pytest.mark.parametrize("data", ["字".encode(), b"a\xe4\xb8", b"\xb8\xad\xe5\x9b", "я".encode() + b"\xd0"])
def test_foreign_pieces_are_not_allowed(data: bytes) -> None:
    assert not can_be_allowed(data)


def test_emoji() -> None:
    sequence = "👩🏽\u200d💻❤\ufe0f🇻🇳1\ufe0f\u20e3"
    assert all(is_emoji(char) for char in sequence if char != "1")
    assert not any(is_emoji(char) for char in "0123456789#*aệ字“")
    assert has_emoji(sequence) and not has_emoji("\ufe0f\u200d") and not has_emoji("12")


@pytest.mark.parametrize("char", ["😀", "🇻", "©", "❤", "🏽"])
def test_every_cut_of_an_emoji_is_a_piece_of_one(char: str) -> None:
    encoded = char.encode()
    for start in range(len(encoded)):
        for end in range(start + 1, len(encoded) + 1):
            assert is_emoji_piece(encoded[start:end]) == (end - start < len(encoded))


def test_not_a_piece_of_an_emoji() -> None:
    assert is_emoji_piece(b" \xf0\x9f") and is_emoji_piece("😀".encode()[1:] + b"\xf0\x9f")
    for data in (b"a\xf0\x9f", b"\xe1\xba", b"\xf0\x90", "😀".encode(), b" "):
        assert not is_emoji_piece(data)


GOOD = """
a à và của không được người những nước trường tiếng Việt VIỆT Nguyễn nghiêng khuya khuỷu khuỵu huỳnh quỳnh
quyết quốc quý quà quở quẹt giếng giêng giết gì gìn giữa giặt giường yêu yểng uống ước oán uyên uất thuở
thuế hòa hoà HÒA khỏe khoẻ thúy thuý Đắk Lắk xoong soóc ngoéo ngoáo hươu rượu ghế nghỉ ngỗng ngoằn kẻ kỳ ký
mỹ ý ỷ ích in trong cho khi tôi mía chùa mưa tuýp huých hoạch khoảnh boong
""".split()
BAD = """
cuả hoàì toán̉ kông cế cí gế ghà ngế nghà ngee iêu iếng yệc qua̧ quôn qúy mot tat cách̀ tàt lạch̀ ăn̉̉ gia̧
đ ngưòi nứơc họat tòan đựoc luợng trưòng zà fà jà wà ầu̧ đắc̀ hòàn xl strong việtt thừ̛ ngiêng ghủ kắ yà
vIệt quee
""".split()


@pytest.mark.parametrize("word", GOOD)
def test_vietnamese_syllable(word: str) -> None:
    assert is_vietnamese_syllable(word)
    assert is_vietnamese_syllable(unicodedata.normalize("NFD", word))
    assert is_vietnamese_syllable(word.upper())


@pytest.mark.parametrize("word", [*BAD, "", " ", "vàng ơi", " và", "ngắn."])
def test_no_vietnamese_syllable(word: str) -> None:
    assert not is_vietnamese_syllable(word)


def test_there_are_as_many_syllables_as_the_spelling_allows() -> None:
    assert 15_000 < len(vietnamese_syllables()) < 20_000


@pytest.mark.assets
def test_words_of_real_vietnamese_text_are_syllables() -> None:
    folder = ASSETS / "corpora" / "vi"
    if not folder.is_dir():
        pytest.skip(f"no real text: {folder} is missing")
    letters = "a-zA-ZăâđêôơưĂÂĐÊÔƠƯàáãèéêìíĩòóõùúũýÀÁÃÈÉÌÍĨÒÓÕÙÚŨÝẠ-ỹ"
    # Words with a letter that no other language has, and with no letter that Vietnamese has not.
    vietnamese = re.compile(rf"(?=\w*[ăđơưĂĐƠƯẠ-ỹ])[{letters}]{{2,}}")
    words: Counter[str] = Counter()
    for path in sorted(folder.iterdir()):
        words.update(re.findall(r"[^\W\d_]+", unicode.nfc(path.read_text(encoding="utf-8"))))
    real = {word: n for word, n in words.items() if vietnamese.fullmatch(word)}
    passed = sum(n for word, n in real.items() if is_vietnamese_syllable(word))
    assert sum(real.values()) > 100_000
    assert passed / sum(real.values()) >= 0.995


def test_english_words() -> None:
    assert 100_000 < len(english_words()) < 200_000
    assert all(word == word.lower() for word in english_words())
    for word in ("the", "The", "THE", "colour", "color", "running", "Vietnam", "café"):
        assert is_english_word(word)
    for word in ("", " the", "getElementById", "nghiêng", "không", "qwrt", "3"):
        assert not is_english_word(word)


@pytest.mark.parametrize(
    ("token", "category"),
    [
        (" song", "english"),
        (" trong", "vietnamese"),
        ("VIỆT", "vietnamese"),
        (" ©", "emoji"),
        ("🙂\n", "emoji"),
        ("字🙂", "others"),
        ("tion", "alphabet_short"),
        (" " * 12, "alphabet_short"),
        (" " * 13, "alphabet_long"),
        ("getElementById", "alphabet_long"),
        ("(x", "ascii_short"),
        ("-" * 16, "ascii_long"),
        (" für", "others"),
        ("“", "others"),
        (None, "others"),
    ],
)
def test_category(token: str | None, category: str) -> None:
    assert category_of(token) == category
    assert category in CATEGORIES
