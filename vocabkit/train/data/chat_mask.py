"""A conversation as the model's chat template writes it, and which of its characters the assistant wrote.

Only these are learned: each answer and the token that ends the turn, never headers or other people's words.

Templates with {% generation %} say it themselves. For the others (ChatML, Llama 3, Gemma, …) there are two
ways, each checked on every conversation: what the template writes up to a turn must be a prefix of what it
writes with it; or, where a template changes earlier turns (Qwen3 drops old thoughts), each answer is replaced
by a mark, and putting the answers back must give the very text. A conversation where both fail is refused.

Reads and writes nothing: it is given a tokenizer of transformers. Standard library only.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from vocabkit.corpus.records import BadRecord
from vocabkit.errors import UserError, one_line
from vocabkit.train.data.samples import IGNORED, Sample

_GENERATION = re.compile(r"\{%-?\s*generation\b")
Spans = list[tuple[int, int]]


def encode_chat(tokenizer: Any, sample: Sample) -> tuple[list[int], list[int], int]:
    """Return ids, labels and the number of bytes of text that the labels stand for.

    Raises BadRecord for a conversation the template refuses or nothing of which can be told to be the
    assistant's, UserError for a tokenizer that has no template.
    """
    if not isinstance(template := tokenizer.chat_template, str):
        template = (template or {}).get("default")
    if not template:
        raise UserError(
            f"{tokenizer.name_or_path} has no chat template, the data holds conversations; "
            "give a model with one, or data with texts"
        )
    messages = list(sample.messages)
    if _GENERATION.search(template):
        text = _render(tokenizer, messages, sample.tools)
        plain = tokenizer.apply_chat_template(
            messages, tools=sample.tools, return_dict=True, return_assistant_tokens_mask=True,
            tokenizer_kwargs={"return_offsets_mapping": True, "verbose": False},
        )  # fmt: skip
        mask = list(map(bool, plain["assistant_masks"]))
    else:
        text, spans = _assistant_spans(tokenizer, messages, sample.tools)
        plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        mask = _inside(plain["offset_mapping"], spans)
    ids, offsets = plain["input_ids"], plain["offset_mapping"]
    labels = [token if learned else IGNORED for token, learned in zip(ids, mask, strict=True)]
    if not any(mask):
        raise BadRecord("the chat template marks no token of the assistant")
    special = set(tokenizer.all_special_ids)
    written = (
        place for label, place in zip(labels, offsets, strict=True) if label not in (IGNORED, *special)
    )
    return ids, labels, _bytes_of(text, written)


def _render(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, *, prompt: bool = False) -> str:
    """What the template makes of messages; prompt: with the header of the answer that is to come."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=prompt
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise BadRecord(f"the chat template refuses it: {one_line(error)}") from None


def _assistant_spans(tokenizer: Any, messages: list[dict[str, Any]], tools: Any) -> tuple[str, Spans]:
    """The whole text, and (start, end) of what the assistant wrote in it."""
    whole = _render(tokenizer, messages, tools)
    special = re.compile(
        "|".join(map(re.escape, sorted(tokenizer.all_special_tokens, key=len, reverse=True)))
    )
    turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    spans = _by_prefixes(tokenizer, messages, tools, whole, turns, special)
    spans = spans or _by_marks(tokenizer, messages, tools, whole, turns, special)
    if spans is None:
        raise BadRecord(
            "the chat template rewrites earlier turns and has no {% generation %}: which tokens are the "
            "assistant's cannot be told"
        )
    return whole, spans


def _by_prefixes(
    tokenizer: Any, messages: list[Any], tools: Any, whole: str, turns: list[int], special: re.Pattern[str]
) -> Spans | None:
    spans = []
    for turn in turns:
        before = _render(tokenizer, messages[:turn], tools, prompt=True) if turn else ""
        after = _render(tokenizer, messages[: turn + 1], tools)
        if not (turn and after.startswith(before) and whole.startswith(after)):
            return None
        ends = [found.end() for found in special.finditer(after, len(before))]
        spans.append((len(before), ends[-1] if ends else len(after)))  # no line end after the end of the turn
    return spans


def _by_marks(
    tokenizer: Any, messages: list[Any], tools: Any, whole: str, turns: list[int], special: re.Pattern[str]
) -> Spans | None:
    mark = "ANSWER"
    while mark in whole:
        mark += "Q"
    changed = [dict(message) for message in messages]
    for turn in turns:
        changed[turn]["content"] = mark
    parts = _render(tokenizer, changed, tools).split(mark)
    if len(parts) != len(turns) + 1:
        return None
    for answers in (
        [messages[turn]["content"] for turn in turns],
        [messages[turn]["content"].strip() for turn in turns],
    ):
        pieces = [parts[0], *(piece for pair in zip(answers, parts[1:], strict=True) for piece in pair)]
        if "".join(pieces) != whole:
            continue
        places = list(accumulate(map(len, pieces)))
        spans = []
        for at, after in enumerate(parts[1:]):
            end = special.match(after) or special.match(after, len(after) - len(after.lstrip()))
            if end is None:  # the answer would be learned without its end
                return None
            spans.append((places[2 * at], places[2 * at + 1] + end.end()))
        return spans
    return None


def _inside(offsets: Sequence[tuple[int, int]], spans: Spans) -> list[bool]:
    """Whether each token lies in one of the spans, which are in order; one that crosses an edge does not."""
    mask, at = [], 0
    for start, end in offsets:
        while at < len(spans) and start >= spans[at][1]:
            at += 1
        mask.append(at < len(spans) and spans[at][0] <= start and end <= spans[at][1])
    return mask


def _bytes_of(text: str, places: Iterable[tuple[int, int]]) -> int:
    """UTF-8 bytes of the characters at some places; a character that several tokens share counts once."""
    total = done = 0
    for start, end in places:
        if end > done:
            total += len(text[max(start, done) : end].encode("utf-8"))
            done = end
    return total
