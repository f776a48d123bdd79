"""Phrases that are avoided: found whatever the tokens, taken back before they are shown, never endless."""

import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabkit.chat import avoid
from vocabkit.chat.avoid import Avoider, read_phrases
from vocabkit.errors import UserError


def answer(pieces, choose, phrases, *, length=40, ignore_case=False):
    """Run an Avoider over a made-up model: pieces are its tokens as bytes, choose(made, forbidden) → id.

    Returns the ids shown, and checks on the way that none is shown and then taken back.
    """

    def decode(ids):
        return b"".join(pieces[i] for i in ids).decode("utf-8", errors="replace")

    avoider = Avoider(phrases, decode, ignore_case=ignore_case)
    made, shown = [], []
    while len(made) < length:
        token_id = choose(made, avoider.forbidden_next())
        if token_id is None:
            break
        made.append(token_id)
        went_back = avoider.add(token_id)
        if went_back is None:
            shown += avoider.take()
        else:
            assert went_back >= len(shown), "a token that was shown is taken back"
            del made[went_back:]
            if avoider.ended:
                break
        assert made[: len(shown)] == shown
    shown += avoider.finish()
    assert shown == made
    return decode(shown)


def scripted(wanted, otherwise):
    """A model that says these tokens, or the first of the others that is allowed."""

    def choose(made, forbidden):
        best = [wanted[len(made)]] if len(made) < len(wanted) else []
        return next((i for i in best + otherwise if i not in forbidden), None)

    return choose


PIECES = [
    b"It is",
    b" a",
    b" tap",
    b"estry",
    b" of",
    b" joy",
    b".",
    b" song",
    b" a tap",
    "ế".encode()[:2],
    "ế".encode()[2:],
]


def test_goes_back_to_the_token_where_the_phrase_began():
    text = answer(PIECES, scripted([0, 1, 2, 3, 4, 5, 6], [7, 6]), ["tapestry of"], length=7)
    assert text.startswith("It is a song"), text


def test_another_way_to_spell_the_phrase_is_found_too():
    """' a tap' is one token, ' a' + ' tap' are two: forbidding one leaves the other."""

    def choose(made, forbidden):
        after = {(0,): [8, 1, 7], (0, 8): [3], (0, 1): [2, 5], (0, 1, 2): [3, 6]}.get(tuple(made), [6])
        return next((i for i in (after if made else [0]) if i not in forbidden), None)

    assert answer(PIECES, choose, ["a tapestry"], length=4) == "It is song.."


def test_text_that_was_taken_is_no_hole():
    """ "ab" may not come: "a" is taken when "x" follows, "x" is taken back, and then comes "b"."""
    pieces = [b"a", b"x", b"b", b"y", b"k"]

    def choose(made, forbidden):
        after = {(): [0], (0,): [1, 2, 4], (0, 1): [3]}.get(tuple(made), [4])
        return next((i for i in after if i not in forbidden), None)

    assert answer(pieces, choose, ["ab", "xy"], length=3) == "akk"


def test_a_phrase_that_ends_the_answer_is_not_shown():
    shown = answer(PIECES, scripted([0, 1, 2, 3], []), ["a tapestry"], length=4)
    assert shown == "It is"


def test_case_and_composition():
    pieces = [b"x", b" A Ta", b"P", b" y", b"e", "\u0302".encode(), "\u0301".encode(), b"z"]
    assert "A TaP" in answer(pieces, scripted([0, 1, 2], [3]), ["a tap"], length=4)
    assert "A TaP" not in answer(pieces, scripted([0, 1, 2], [3]), ["a tap"], length=4, ignore_case=True)
    text = answer(pieces, scripted([0, 4, 5, 6, 7], [3]), ["ế"], length=5)  # spelled in three tokens
    assert "ế" not in unicodedata.normalize("NFC", text)


def test_characters_in_pieces():
    """A phrase that begins inside a character's bytes goes back to the first of them."""
    text = answer(PIECES, scripted([0, 9, 10, 6], [7, 6]), ["ế."], length=6)
    assert text.startswith("It is") and "ế." not in text


def test_what_the_prompt_says_does_not_count():
    assert answer(PIECES, scripted([4, 5], [6]), ["a tapestry of joy"], length=3) == " of joy."


def test_a_model_that_can_say_nothing_else_ends():
    assert answer([b"ab"], lambda made, forbidden: None if 0 in forbidden else 0, ["ab"]) == ""
    always = answer([b"ab"], lambda made, forbidden: 0, ["ba"])  # a backend that ignores what is forbidden
    assert "ba" not in always


def test_too_many_forbidden_tokens_put_the_blame_on_the_one_before(monkeypatch):
    monkeypatch.setattr(avoid, "MAX_FORBIDDEN", 2)
    pieces = [b"q", b"a", b"b", b"c", b"d", b"k"]

    def choose(made, forbidden):
        order = [0, 5] if not made else [1, 2, 3, 4] if made[-1] == 0 else [5]
        return next((i for i in order if i not in forbidden), None)

    assert answer(pieces, choose, ["qa", "qb", "qc", "qd"], length=3) == "kkk"


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_output_never_holds_an_avoided_phrase(data):
    """Any tokens over a small alphabet, any phrases, any model: greedy by a random preference."""
    alphabet = "abAé ế"
    pieces = data.draw(
        st.lists(st.text(alphabet, min_size=1, max_size=4), min_size=2, max_size=12, unique=True)
    )
    as_bytes = [piece.encode() for piece in pieces]
    as_bytes += [bytes([byte]) for byte in sorted({b for char in "éế" for b in char.encode()})]
    phrases = data.draw(st.lists(st.text(alphabet, min_size=1, max_size=5), min_size=1, max_size=6))
    ignore_case = data.draw(st.booleans())
    seed = data.draw(st.integers(0, 10_000))

    def choose(made, forbidden):
        order = list(range(len(as_bytes)))
        random.Random(f"{seed}{made}").shuffle(order)
        return next((i for i in order if i not in forbidden), None)

    text = answer(as_bytes, choose, phrases, length=16, ignore_case=ignore_case)

    def normal(text):
        text = unicodedata.normalize("NFC", text)
        return text.casefold() if ignore_case else text

    assert not [phrase for phrase in phrases if normal(phrase) in normal(text)]


def test_phrases_of_a_file(tmp_path):
    file = tmp_path / "slop.txt"
    file.write_text("# words of others\n\na tapestry of\nbức tranh đa sắc\n", encoding="utf-8")
    assert read_phrases(["delve"], file) == ["delve", "a tapestry of", "bức tranh đa sắc"]
    file.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no phrase"):
        read_phrases([], file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_phrases([], file)
    file.write_bytes("\ufeffMy name\r\n # no phrase\r thời_gian rảnh\n\ufeff\nsnake_case\n".encode())
    assert read_phrases([], file) == ["My name", "thời_gian rảnh", "thời gian rảnh", "snake_case"]
    with pytest.raises(UserError, match="is missing"):
        read_phrases([], tmp_path / "none.txt")
