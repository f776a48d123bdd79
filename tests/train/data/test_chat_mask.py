"""vocabkit/train/data/chat_mask.py: what of a conversation is learned, and what is refused."""

import pytest
from tiny import ASSETS, CHAT_TEMPLATE
from training import MARKED, TURNS, UNMARKED
from transformers import AutoTokenizer

from vocabkit.corpus.records import BadRecord
from vocabkit.train.data.chat_mask import IGNORED, encode_chat
from vocabkit.train.data.chats import Chat, chat_of

# As Qwen3's: the last answer alone gets a place for thoughts, so no earlier text is a prefix of a later one.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


SHOUTING = THINKING.replace("{{ m.content }}", "{{ m.content | upper }}")


TURN_TAGS = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}\n{{ m.content | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def learned(tokenizer, ids: list[int], labels: list[int]) -> list[str]:
    """The texts of the runs of tokens that are learned."""
    runs: list[list[int]] = []
    last = IGNORED
    for token, label in zip(ids, labels, strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED and last == IGNORED:
            runs.append([])
        if label != IGNORED:
            runs[-1].append(token)
        last = label
    return [tokenizer.decode(run) for run in runs]


def chat(turns=TURNS, **more) -> Chat:
    found = chat_of({"messages": turns, **more}, field=None)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, MARKED, THINKING], ids=["prefixes", "generation", "marks"]
)
def test_the_answers_and_their_ends_are_learned_and_nothing_else(tokenizer, template):
    tokenizer.chat_template = template
    ids, labels, size = encode_chat(tokenizer, chat())
    text = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert tokenizer.decode(ids) == text
    assert learned(tokenizer, ids, labels) == ["Chào bạn 😀!<|im_end|>", "Tạm biệt.<|im_end|>"]
    assert size == len("Chào bạn 😀!Tạm biệt.".encode())


@pytest.mark.parametrize("kind", ["llama3", "gemma"])
def test_other_tokenizers(tiny, kind):
    tokenizer = AutoTokenizer.from_pretrained(tiny(kind).path)
    marks = {"llama3": ("<|start_header_id|>", "<|eot_id|>"), "gemma": ("<turn>", "</turn>")}[kind]
    tokenizer.chat_template = TURN_TAGS.replace("<turn>", marks[0]).replace("</turn>", marks[1])
    tokenizer.add_special_tokens({"extra_special_tokens": list(marks)})
    ids, labels, size = encode_chat(tokenizer, chat())
    assert learned(tokenizer, ids, labels) == [f"Chào bạn 😀!{marks[1]}", f"Tạm biệt.{marks[1]}"]
    assert size == len("Chào bạn 😀!Tạm biệt.".encode())
    assert ids.count(tokenizer.bos_token_id) == 1, (
        "the template writes one, the tokenizer must not add another"
    )


def test_an_answer_before_any_question(tokenizer):
    ids, labels, _ = encode_chat(tokenizer, chat(TURNS[1:]))
    assert learned(tokenizer, ids, labels) == ["Chào bạn 😀!<|im_end|>", "Tạm biệt.<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (SHOUTING, "does not write all of the content of turn 1"),
        (THINKING.replace("<|im_end|>", "END"), "cannot be told"),
        (THINKING.replace("{{ m.content }}", "{{ m.content }}{{ m.content }}"), "cannot be told"),
        (UNMARKED, "marks no token of the assistant"),
        ("{{ raise_exception('only one turn') }}", "the chat template refuses it: only one turn"),
        ("{{ 1/0 }}", "the chat template refuses it: division by zero"),
        (
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "the chat template refuses it: maximum recursion",
        ),
    ],
)
def test_a_mask_that_is_not_certain_is_refused(tokenizer, template, reason):
    tokenizer.chat_template = template
    with pytest.raises(BadRecord, match=reason):
        encode_chat(tokenizer, chat())


def test_bytes_inside_the_template_must_be_those_outside(tokenizer):
    tokenizer.chat_template = {"default": CHAT_TEMPLATE}
    assert encode_chat(tokenizer, chat())[2] == len("Chào bạn 😀!Tạm biệt.".encode())


REAL = {
    "qwen2.5-instruct": ["Chào bạn 😀!<|im_end|>", "Tạm biệt.<|im_end|>"],
    "qwen3": ["Chào bạn 😀!<|im_end|>", "Tạm biệt.<|im_end|>"],
    "llama-3.2-instruct": ["Chào bạn 😀!<|eot_id|>", "Tạm biệt.<|eot_id|>"],
    "gemma-2-it": ["Chào bạn 😀!<end_of_turn>", "Tạm biệt.<end_of_turn>"],
}


@pytest.mark.assets
@pytest.mark.parametrize("name", REAL)
def test_real_templates(name):
    folder = ASSETS / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing; set VOCABKIT_ASSETS")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids, labels, size = encode_chat(tokenizer, chat())
    assert learned(tokenizer, ids, labels) == REAL[name]
    assert size == len("Chào bạn 😀!Tạm biệt.".encode())
