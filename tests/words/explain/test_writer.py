"""A language model's answers become rows: read leniently, asked again with what is wrong, none twice."""

import copy
import json
import unicodedata
from typing import Any

import pytest
from explaining import ENCODER, MARKET, TIME, answer_of, with_example

from vocabkit.words.explain.writer import ATTEMPTS, Writer, in_parallel, parse_answer, question


@pytest.mark.parametrize(
    "text",
    [
        answer_of(TIME),
        f"Sure, here it is:\n```json\n{answer_of(TIME)}\n```\nAnything else?",
        f"<think>\nA draft: {answer_of(MARKET)}\n</think>\n{answer_of(TIME)}",
        f"First {{the draft}}: {answer_of(MARKET)} and now {answer_of(TIME)}",
        unicodedata.normalize("NFD", json.dumps({**json.loads(answer_of(TIME)), "note": {"a": 1}}, indent=1)),
        answer_of(TIME).replace("thời▁gian", "thời gian").replace("Đừng lãng", "  Đừng  lãng"),
        answer_of(TIME).replace("Đừng lãng", "Đừng\\nlãng").replace("chuyện không", "chuyện\nkhông"),
    ],
    ids=["plain", "fenced", "thought", "braces", "decomposed", "spaces", "line ends"],
)
def test_answers_are_read_leniently(text):
    assert parse_answer(text) == {key: value for key, value in TIME.items() if key != "en_one_token"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        answer_of(TIME)[:-1],
        "{}",
        "[1]",
        '{"a"',
        "<think>{",
        "{" * 9000,
        "{]" * 3000,
        '{"a":' * 100_000,
    ],
)
def test_answers_without_an_object(text):
    found = parse_answer(text)
    assert found is None or "examples_en" not in found


def test_the_question_tells_the_rules_and_the_dictionary():
    text = question("thời▁gian", ["time", "while"])
    for part in (
        '"thời gian"',
        '"thời▁gian"',
        "1 to 5",
        "2 to 6",
        "exactly 3",
        "8 words",
        "5 words",
        ". ! ? …",
    ):
        assert part in text
    assert text.endswith('A dictionary translates "thời gian" as: time, while.')
    assert "A dictionary translates" not in question("thời▁gian")


class Script:
    """A model that gives prepared answers, and remembers what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[list[dict[str, str]]] = []

    def __call__(self, messages: list[dict[str, str]], *, schema: dict[str, Any]) -> str:
        self.asked.append(messages)
        return self.answers.pop(0)


WORDS = ["thời▁gian", "chợ▁nổi"]


def test_a_wrong_answer_is_asked_again_with_what_is_wrong():
    short = answer_of(with_example(1, "Tôi hết thời gian rồi."))
    model = Script(short, "xin lỗi", answer_of(MARKET), answer_of(TIME))
    dictionary = {"thời gian": ["while"]}
    writer = Writer(model, words=WORDS, encoder=ENCODER, dictionary=dictionary)
    assert writer.write("thời▁gian") == {"row": TIME}
    first, second, third, fourth = model.asked
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert first == second[:1] == fourth[:1] and first[0]["content"].endswith("as: while.")
    assert second[1]["content"] == short and "with 5 words, expected 8 or more" in second[2]["content"]
    assert "- holds no whole JSON object" in third[2]["content"]
    assert "- \"word\" is 'chợ▁nổi', expected 'thời▁gian'" in fourth[2]["content"]


def test_a_word_is_given_up_after_some_answers():
    model = Script("", '{"word": "thời gian", "en": "time"}', *[answer_of(TIME)[:-9]] * 9)
    result = Writer(model, words=WORDS).write("thời▁gian")
    assert result == {"word": "thời▁gian", "problems": ["holds no whole JSON object"]}
    assert len(model.asked) == ATTEMPTS and model.asked[1][1]["content"] == "{}", "no empty message"
    assert "\"en\" is 'time', expected a list of strings" in model.asked[2][2]["content"]


def test_no_sentence_comes_twice():
    stolen = copy.deepcopy(MARKET)
    stolen["examples"][1] = TIME["examples"][1]
    model = Script(answer_of(TIME), answer_of(stolen), answer_of(MARKET))
    writer = Writer(model, words=WORDS, encoder=ENCODER)
    assert [writer.write(word) for word in WORDS] == [{"row": TIME}, {"row": MARKET}]
    assert "example 2 stands in another row, that of thời▁gian" in model.asked[2][2]["content"]


def test_in_parallel_gives_everything_and_raises_what_is_raised():
    words = [str(number) for number in range(50)]
    for threads in (1, 4):
        found = list(in_parallel(lambda word: {"word": word}, words, threads=threads))
        assert sorted(int(item["word"]) for item in found) == list(range(50))
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda word: {"word": 1 // int(word)}, words, threads=4))
