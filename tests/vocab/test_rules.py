"""The rules: on small tokens, one by one, and on real tokenizers without counts."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import Folder

from vocabkit.errors import UserError
from vocabkit.text.unicode import DEFAULT_SCRIPTS, first_foreign, foreign_script
from vocabkit.vocab.rules import (
    ADDED,
    COUNTED_PIECE,
    EAST_ASIAN_FORM,
    EMOJI_PIECE,
    FOREIGN_PIECE,
    OWN_PREFIX,
    RARE,
    RARE_PIECE,
    SURE,
    Decision,
    decide,
)


def decide_one(token: str | bytes, count: int | None, **options: object) -> Decision:
    data = token.encode() if isinstance(token, str) else token
    counts = None if count is None else {7: count}
    return decide({7: data}, counts, **options)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("token", "count", "kept", "reason"),
    [
        (b"\xe4", 0, True, "single byte"),
        ("字", 10**9, False, "script Han"),
        ("ก", 10**9, False, "script Thai"),
        ("a я", 10**9, False, "script Cyrillic"),
        ("字".encode() + b"\xe4", 10**9, False, "script Han"),
        ("，", 10**9, False, EAST_ASIAN_FORM),
        ("Ａ", 10**9, False, EAST_ASIAN_FORM),
        (b"\xe4\xb8", 10**9, False, FOREIGN_PIECE),
        (b"a\xff", 10**9, False, FOREIGN_PIECE),
        (b"\xf0\x9f\x98", 0, True, EMOJI_PIECE),
        (b"\xe2\x88", 0, True, OWN_PREFIX),
        (b" t\xe1\xbb", 1000, True, COUNTED_PIECE),
        (b" t\xe1\xbb", 999, False, RARE_PIECE),
        (" für", 20000, True, SURE),
        (" für", 19999, False, RARE),
        ("nghễnh", 0, True, "Vietnamese syllable"),
        (" ngoeo", 0, True, "Vietnamese syllable"),
        ("🦒", 0, True, "emoji"),
        (" giraffe", 1, True, "English word in use"),
        (" giraffe", 0, False, RARE),
        (" café", 1, True, "English word in use"),
        ("();", 100, True, "ASCII"),
        ("();", 99, False, RARE),
        ("()", 0, True, "ASCII of 2 characters or less"),
        ("iểu", 1000, True, "piece of a Vietnamese syllable"),
        ("iểu", 999, False, RARE),
        ("“This", 1000, True, "symbols"),
        ("। ॥", 1000, False, RARE),
        ("ß", 1000, True, "single character"),
    ],
)
def test_rules(token: str | bytes, count: int, kept: bool, reason: str) -> None:
    decision = decide_one(token, count)
    assert (decision.keep, decision.reason) == (kept, reason)


def test_added_tokens_stay_whatever_they_say() -> None:
    decision = decide({3: "<|字|>".encode()}, {}, added={3})[0]
    assert decision.keep and decision.reason == ADDED


def test_thresholds_and_scripts_are_options() -> None:
    assert decide_one(" für", 5, sure_count=5).keep
    assert decide_one("();", 1, min_count=10).keep
    assert decide_one(b" t\xe1\xbb", 10, min_count=10).keep
    cyrillic = DEFAULT_SCRIPTS | {"Cyrillic"}
    assert decide_one("привет", 1000, scripts=cyrillic).keep
    assert not decide_one("привет", 999, scripts=cyrillic).keep
    assert decide_one("，", 20000, scripts=DEFAULT_SCRIPTS | {"Han"}).keep


def test_unknown_script_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="'Klingon' is no Unicode script.*Cyrillic"):
        decide_one("a", 1, scripts=frozenset({"Latin", "Klingon"}))


@pytest.mark.parametrize(
    ("token", "kept"),
    [
        (" für", True),
        ("ABC", True),
        ("字", False),
        (b"\xe4\xb8", False),
        (b"\xe1\xba", True),
        (b"\xe4", True),
    ],
)
def test_without_counts_the_text_decides(token: str | bytes, kept: bool) -> None:
    assert decide_one(token, None).keep == kept


TOKENS = st.one_of(st.binary(min_size=1, max_size=5), st.text(min_size=1, max_size=4).map(str.encode))
NUMBERS = st.one_of(st.integers(0, 30000), st.sampled_from([0, 1, 99, 100, 999, 1000, 19999, 20000]))


@given(TOKENS, NUMBERS, NUMBERS)
def test_a_higher_count_never_removes(token: bytes, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert decide_one(token, low).keep <= decide_one(token, high).keep <= decide_one(token, None).keep


@given(st.text(max_size=3), st.characters(exclude_categories=["Cs"]), NUMBERS)
def test_no_foreign_character_is_kept(before: str, char: str, count: int) -> None:
    if foreign_script(char):
        assert not decide_one(before + char, count).keep
        assert not decide_one(before + char, None).keep


@pytest.mark.parametrize("name", ["llama-3.2-instruct", "t5-v1_1"])
def test_text_rules_alone_serve_other_tokenizers(real: Callable[[str], Folder], name: str) -> None:
    tokenizer = real(name).tokenizer
    added = set(tokenizer.added.values())
    always = tokenizer.byte_ids() | added
    some = {token_id for token_id in tokenizer.tokens if token_id % 5 == 0} | always
    some_bytes = {token_id: tokenizer.token_bytes[token_id] for token_id in sorted(some)}
    kept = {d.id for d in decide(some_bytes, None, added=added) if d.keep}
    assert always <= kept and len(kept) > len(some) / 4
    for token_id in kept - added:
        assert not first_foreign(tokenizer.token_bytes[token_id].decode("utf-8", "ignore"))
