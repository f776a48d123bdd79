"""vocabkit/text/writing.py: what a trimmed model must be able to write."""

import unicodedata

import regex

from vocabkit.text.unicode import first_foreign
from vocabkit.text.writing import (
    emoji_sequences,
    name_spelled,
    vietnamese_letters,
    writing_characters,
    writing_forms,
)


def test_every_vietnamese_letter_in_both_cases():
    letters = {
        unicodedata.normalize("NFC", letter + tone)
        for letter in "aăâeêioôơuưyđAĂÂEÊIOÔƠUƯYĐ"
        for tone in ("", "\u0300", "\u0301", "\u0303", "\u0309", "\u0323")
    }
    assert vietnamese_letters() == {letter for letter in letters if len(letter) == 1 and not letter.isascii()}


def test_the_emoji_list_is_unicodes():
    """Every emoji that the regex library knows as one, all flags, all keycaps, skin tones, families."""
    sequences = emoji_sequences()
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    shown = regex.findall(r"[\p{Emoji_Presentation}--\p{Regional_Indicator}]", every, regex.V1)
    assert len(shown) > 1100 and not set(shown) - sequences
    assert {f"{key}\ufe0f\u20e3" for key in "0123456789#*"} <= sequences
    assert {
        "🇻🇳",
        "👍🏽",
        "👨\u200d👩\u200d👧",
        "🏳\ufe0f\u200d🌈",
        "㊗\ufe0f",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    } <= sequences
    assert len(sequences) > 5000


def test_nothing_of_it_is_foreign():
    assert first_foreign("".join(writing_characters())) is None
    assert set("“”–—…•€₫°×→™≤½²№₂├") <= writing_characters()


def test_forms_hold_what_the_issue_names():
    forms = set(writing_forms())
    assert {" ở", " ủy", " ảnh", " ổn", "BIẾN", "TIẾNG", "(Nguyễn", " café", "1️⃣", " →"} <= forms


def test_scripts_are_named_by_what_of_them_can_be_spelled():
    spelled = {
        "Han": frozenset("⺀"),
        "Thai": frozenset("กข"),
        "Coptic": frozenset("Ⲁ"),
        "Ogham": frozenset("ᚁ"),
    }
    assert name_spelled(spelled) == (
        "Thai (2); only rare characters of Han (1); 2 scripts that are rare themselves"
    )
    assert name_spelled({}) == ""
