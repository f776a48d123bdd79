"""vocabkit/train/data/samples.py: what a row becomes, and why some become nothing."""

import pytest
from training import EN, TURNS, VI

from vocabkit.corpus.records import BadRecord
from vocabkit.train.data.samples import Sample, language_of, samples_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (VI, "vietnamese"),
        (EN, "english"),
        ("To be or not to be", "english"),
        ("今天天气", "english"),
        ("", "english"),
    ],
)
def test_language(text, language):
    assert language_of(text) == language


def test_pairs_in_both_directions():
    for row in ({"en": EN, "vi": VI}, {"translation": {"en": EN, "vi": VI}}, [EN, VI]):
        assert samples_of(row, text_field=None) == [Sample("bilingual", f"{EN}\n{VI}")]
        assert samples_of(row, text_field=None, swap=True) == [Sample("bilingual", f"{VI}\n{EN}")]
    assert [sample.kind for sample in samples_of([EN, EN], text_field=None)] == ["english", "english"]


def test_examples_of_words_are_texts_and_pairs():
    row = {"word": "trời", "examples": [VI, "Trời mưa."], "examples_en": [EN, "It rains."]}
    found = samples_of(row, text_field=None)
    assert [sample.kind for sample in found] == ["vietnamese", "bilingual"] * 2
    assert [sample.text for sample in found] == [VI, f"{VI}\n{EN}", "Trời mưa.", "It rains.\nTrời mưa."]
    assert len(samples_of({"word": "x", "examples": [VI]}, text_field=None)) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"examples": []}, '"examples" is empty'),
        ({"examples": [VI], "examples_en": [EN, EN]}, 'holds 1 sentences, "examples_en" 2'),
        ({"examples": [3]}, '"examples" is a number, expected a string'),
        ({"en": " ", "vi": VI}, "one side of its pair is empty"),
        ({"text": " "}, "its text is empty"),
        ([" ", ""], "its cells are empty"),
        ({"messages": []}, '"messages" is empty'),
        ({"messages": [{"content": "x"}]}, 'neither "role" nor "from"'),
        ({"messages": [{"role": "user"}]}, 'neither "content" nor "value"'),
        (
            {"messages": [{"role": "user", "content": "x"}]},
            'no assistant turn in "messages", its roles are "user"',
        ),
        ({"title": "x"}, 'no "text", "messages", "conversations" among its fields: "title"'),
    ],
)
def test_rows_without_a_sample(row, reason):
    with pytest.raises(BadRecord, match=reason):
        samples_of(row, text_field=None)


def test_conversations_of_other_tools_are_the_same():
    others = [{"from": "human", "value": "Xin chào"}, {"from": "gpt", "value": "Chào bạn 😀!"}, *TURNS[2:]]
    assert samples_of({"conversations": others}, text_field=None)[0].chat.messages == tuple(TURNS)
