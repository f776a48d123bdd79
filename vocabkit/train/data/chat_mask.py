"""A conversation as the model's chat template writes it, and which of its characters the assistant wrote.

Only these are learned: each answer and the token that ends the turn, never headers or other people's words.

Templates with {% generation %} say it themselves. For the others (ChatML, Llama 3, Gemma, …) there are three
ways, each checked on every conversation: what the template writes up to a turn must be a prefix of what it
writes with it; or, where a template changes earlier turns (Qwen3 drops old thoughts), each answer is replaced
by a mark, and putting the answers back must give the very text; or, where answers call functions, each begins
after the header that the template puts before an answer to come. A conversation where all fail is refused,
and one whose text does not hold every turn: a template may leave out what it does not know.

Reads and writes nothing: it is given a tokenizer of transformers. Standard library only.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from vocabkit.corpus.records import BadRecord
from vocabkit.errors import UserError, one_line
from vocabkit.train.data.chats import THOUGHTS, Chat, Message
from vocabkit.train.data.samples import IGNORED

_GENERATION = re.compile(r"\{%-?\s*generation\b")
Spans = list[tuple[int, int]]


def encode_chat(tokenizer: Any, chat: Chat) -> tuple[list[int], list[int], int]:
    """Return ids, labels and the number of bytes of text that the labels stand for.

    Raises BadRecord for a conversation the template refuses or leaves something out of, or nothing of which
    can be told to be the assistant's, UserError for a tokenizer that has no template.
    """
    if chat.segments:
        text, spans = _segment_spans(chat.segments)
        return _labelled(tokenizer, text, spans)
    if not isinstance(template := tokenizer.chat_template, str):
        template = (template or {}).get("default")
    if not template:
        raise UserError(
            f"{tokenizer.name_or_path} has no chat template, the data holds conversations; "
            "give a model with one, or data with texts"
        )
    messages, text = _written(tokenizer, chat)
    says_itself = bool(_GENERATION.search(template))
    spans = [(0, len(text))]
    if chat.unlearned or not says_itself:
        turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        every = _assistant_spans(tokenizer, messages, chat.tools, text, turns)
        spans = [span for at, span in zip(turns, every, strict=True) if at not in chat.unlearned]
    if not says_itself:
        return _labelled(tokenizer, text, spans)
    plain = _apply(
        tokenizer, messages, chat.tools, return_dict=True, return_assistant_tokens_mask=True,
        tokenizer_kwargs={"verbose": False},
    )  # fmt: skip
    return _labelled(tokenizer, text, spans, plain["assistant_masks"])


def _labelled(
    tokenizer: Any, text: str, spans: Spans, said: Sequence[int] | None = None
) -> tuple[list[int], list[int], int]:
    """encode_chat() of a text; said: by the template itself, 1 for each token that is the assistant's."""
    plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = plain["input_ids"], plain["offset_mapping"]
    mask = _inside(offsets, spans)
    if said is not None:
        mask = [inside and bool(by_template) for inside, by_template in zip(mask, said, strict=True)]
    if not any(mask):
        raise BadRecord("the chat template marks no token of the assistant")
    labels = [token if learned else IGNORED for token, learned in zip(ids, mask, strict=True)]
    special = set(tokenizer.all_special_ids)
    written = (
        place for label, place in zip(labels, offsets, strict=True) if label not in (IGNORED, *special)
    )
    return ids, labels, _bytes_of(text, written)


def _segment_spans(segments: Sequence[tuple[bool, str]]) -> tuple[str, Spans]:
    ends = list(accumulate(len(text) for _, text in segments))
    places = zip([0, *ends], ends, strict=False)
    spans: Spans = []
    for (is_learned, _), (start, end) in zip(segments, places, strict=True):
        if is_learned and spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], end)
        elif is_learned:
            spans.append((start, end))
    return "".join(text for _, text in segments), spans


def _written(tokenizer: Any, chat: Chat) -> tuple[list[Message], str]:
    """The messages as the template takes them, and what it makes of them, in which all of them stand.

    Most templates want the arguments of a call as an object, some (DeepSeek's) as JSON text.
    """
    as_text = [
        {**message, "tool_calls": [_with_text(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in chat.messages
    ]
    refused: BadRecord | None = None
    for messages in [list(chat.messages), as_text][: 1 + any("tool_calls" in m for m in chat.messages)]:
        try:
            text = _render(tokenizer, messages, chat.tools)
            _check_written(text, chat)
            return messages, text
        except BadRecord as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def _check_written(text: str, chat: Chat) -> None:
    """BadRecord if a turn's text, its calls or a tool's name do not stand in what the template wrote."""
    text = _solid(text)
    at = 0
    for number, message in enumerate(chat.messages, 1):
        in_order = message["role"] != "system"  # some templates put the system's text into another turn
        for name in ("content", *THOUGHTS):
            end = _found(message.get(name) or "", text, at if in_order else 0)
            if end is None:
                raise BadRecord(f"the chat template does not write all of the {name} of turn {number}")
            at = end if in_order and name == "content" else at
        for call in message.get("tool_calls", ()):
            function = call["function"]
            arguments = function["arguments"]
            if any(_found(leaf, text, 0) is None for leaf in [function["name"], *_leaves(arguments)]) or (
                arguments and _solid(str(arguments)) in text and str(arguments) != json.dumps(arguments)
            ):  # Python's way of writing an object is not JSON
                raise BadRecord(f"the chat template does not write the call of {function['name']}")
    for tool in chat.tools or ():
        name = tool["function"].get("name")
        if isinstance(name, str) and _found(name, text, 0) is None:
            raise BadRecord(
                f"the chat template does not write the tool {name}; take tools out of the data, or train a "
                "model whose template knows them"
            )


def _solid(text: str) -> str:
    """A text without white space: templates trim."""
    return "".join(text.split())


def _found(part: str, solid: str, start: int) -> int | None:
    """Where a part ends in a text (_solid), as it is or as JSON writes it; None if it is not there."""
    for form in (part, json.dumps(part, ensure_ascii=False)[1:-1], json.dumps(part)[1:-1]):
        if (at := solid.find(form := _solid(form), start)) >= 0:
            return at + len(form)
    return None


def _leaves(value: Any) -> Iterator[str]:
    """The names and texts inside a value of JSON."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield name
            yield from _leaves(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _leaves(inside)
    elif isinstance(value, str):
        yield value


def _render(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, *, prompt: bool = False) -> str:
    """What the template makes of messages; prompt: with the header of the answer that is to come."""
    text: str = _apply(tokenizer, messages, tools, tokenize=False, add_generation_prompt=prompt)
    return text


def _apply(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, **options: Any) -> Any:
    try:
        return tokenizer.apply_chat_template(messages, tools=tools, **options)
    except Exception as error:  # templates are programs: each raises what it likes
        raise BadRecord(f"the chat template refuses it: {one_line(error)}") from None


def _assistant_spans(
    tokenizer: Any, messages: list[Message], tools: Any, whole: str, turns: list[int]
) -> Spans:
    """(start, end) of what the assistant wrote in whole, for each of its turns."""
    special = re.compile(
        "|".join(map(re.escape, sorted(tokenizer.all_special_tokens, key=len, reverse=True)))
    )
    for way in (_by_prefixes, _by_marks, _by_headers):
        if (spans := way(tokenizer, messages, tools, whole, turns, special)) is not None:
            return spans
    raise BadRecord(
        "the chat template rewrites earlier turns and has no {% generation %}: which tokens are the "
        "assistant's cannot be told"
    )


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
    if any("tool_calls" in message for message in messages):  # they are written behind the mark
        return None
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


def _by_headers(
    tokenizer: Any, messages: list[Any], tools: Any, whole: str, turns: list[int], special: re.Pattern[str]
) -> Spans | None:
    """Answers with calls: from the header to the next special token, if header and answer are just there."""
    if not turns[0] or not any("tool_calls" in message for message in messages):
        return None
    before = messages[: turns[0]]
    closed, opened = _render(tokenizer, before, tools), _render(tokenizer, before, tools, prompt=True)
    lines = opened.removeprefix(closed).splitlines(keepends=True)
    while lines and whole.count("".join(lines)) != len(turns):  # a template may begin a thought there
        lines.pop()
    header = "".join(lines)
    if not header.strip() or not opened.startswith(closed):
        return None
    spans = []
    at = 0
    for turn in turns:
        start = whole.index(header, at) + len(header)
        end = special.search(whole, start)
        if end is None:
            return None
        written = _solid(whole[start : end.start()])
        calls = [call["function"]["name"] for call in messages[turn].get("tool_calls", ())]
        if any(_found(part, written, 0) is None for part in [messages[turn]["content"], *calls]):
            return None
        spans.append((start, end.end()))
        at = end.end()
    return spans


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
