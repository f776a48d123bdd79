"""Rows that are conversations to messages as chat templates take them, whatever tool the rows were made for.

    OpenAI         messages: role, content, tool_calls, function_call, weight; beside them tools, functions
    ShareGPT       conversations: from, value
    LLaMA-Factory  the same with turns of function_call and observation, columns system and tools; Alpaca's
                   columns with system and history
    Alpaca         instruction, input, output; also prompt + completion, question + answer and their like
    axolotl        any of these with train or training in a turn; segments: label, text

Whatever else a row holds is named in Chat.unread, or the row is refused: nothing is dropped quietly. Reads
and writes no file. Standard library only.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vocabkit.corpus.records import (
    CHATS,
    BadRecord,
    clean_text,
    described,
    messages_in,
    quoted,
    texts_of_messages,
)

QUESTIONS = ("instruction", "prompt", "question")
ANSWERS = ("output", "response", "completion", "answer")
INPUTS = ("input", "context")  # what the instruction is about
ALWAYS = ("system", "tools", "functions")  # what any conversation may have beside it
COLUMNS = (*CHATS, *ALWAYS, *QUESTIONS, *ANSWERS, *INPUTS, "history", "segments")
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",  # its text is what it calls, as JSON
    "tool_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "ipython": "tool",
    "tool_response": "tool",
}
CALLS = ("function_call", "tool_call")
LEARN = ("weight", "train", "training")  # 0 or false: an answer that is read and not learned
THOUGHTS = ("reasoning_content", "thinking")
# Of a message. Others are handed to the chat template, and named in unread.
KEYS = ("role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id", *LEARN, *THOUGHTS)
NOT_READ = ("train_detail", "training_detail")  # parts of an answer that are not learned
Message = dict[str, Any]


@dataclass(frozen=True)
class Chat:
    """One conversation; segments instead of messages where the row brings its text ready-made."""

    messages: tuple[Message, ...] = ()  # {"role", "content", …}, all strings in NFC; arguments as objects
    tools: list[Any] | None = None  # [{"type": "function", "function": {…}}, …]
    unlearned: frozenset[int] = frozenset()  # indices of the assistant's turns that are read only
    segments: tuple[tuple[bool, str], ...] = ()  # (is it learned, text)
    unread: tuple[str, ...] = ()  # columns, and "messages.KEY", of which nothing was made


def chat_of(row: dict[str, Any], *, field: str | None) -> Chat | None:
    """Return the conversation that a row is, None if it is none; BadRecord for one that cannot be read.

    field: the column in which messages are looked for, instead of CHATS and all others.

    >>> chat_of({"instruction": "Dịch", "input": "xin chào", "output": "hello"}, field=None).messages[0]
    {'role': 'user', 'content': 'Dịch\\nxin chào'}
    """
    for name in CHATS if field is None else (field,):
        if row.get(name) is not None and (found := messages_in(row[name])) is not None:
            if found or not row.get("text"):
                return _chat(row, found, read={name}, where=f'"{name}"')
        elif name in CHATS and isinstance(row.get(name), str) and field is None:
            raise BadRecord(f'"{name}" is a string that is no JSON list of messages')
    if field is not None:
        return None
    if isinstance(row.get("segments"), list):
        return _of_segments(row)
    if "chosen" in row and "rejected" in row:
        raise BadRecord('it is a choice ("chosen", "rejected"), only answers to be learned can be read')
    question = next((name for name in QUESTIONS if row.get(name) is not None), None)
    answer = next((name for name in ANSWERS if row.get(name) is not None), None)
    return _of_pair(row, question, answer) if question and answer else None


def unread_columns(row: dict[str, Any], *read: str) -> tuple[str, ...]:
    """Return the columns of a row that hold something and are not among those that were read.

    >>> unread_columns({"text": "a", "id": 3, "note": None}, "text")
    ('id',)
    """
    return tuple(name for name in row if row[name] not in (None, "", [], {}) and name not in read)


def _chat(row: dict[str, Any], found: list[Any], *, read: set[str], where: str, read_only: int = 0) -> Chat:
    """What messages make, with the columns beside them; the first read_only are not learned."""
    if not found:
        raise BadRecord(f"{where} is empty")
    messages, unlearned, odd = [], set(), []
    for number, (message, texts) in enumerate(texts_of_messages(found, where), 1):
        place = f"message {number} of {where}"
        made, learn = _message(message, texts, place)
        role = made["role"]
        known = (*KEYS, "name") if role == "tool" else KEYS  # a tool's name stands in the call already
        odd += [f"messages.{name}" for name in made if name not in known]
        odd += [f"messages.{name} of {role}" for name in LEARN if role != "assistant" and message.get(name)]
        if made["role"] == "assistant":
            if not learn or number <= read_only:
                unlearned.add(number - 1)
            elif not (made["content"].strip() or made.get("tool_calls")):
                raise BadRecord(f"{place} is an empty answer")
        messages.append(made)
    roles: list[str] = list(dict.fromkeys(message["role"] for message in messages))
    if "assistant" not in roles:
        raise BadRecord(f"no assistant turn in {where}, its roles are {quoted(roles)}")
    if len(unlearned) == sum(message["role"] == "assistant" for message in messages):
        raise BadRecord(f"no assistant turn in {where} is to be learned, all have a weight of 0")
    if (system := _string(row, "system")) and system.strip():
        if roles[0] == "system" and messages[0]["content"] != system:
            raise BadRecord(f'it has two system texts, in "system" and in {where}')
        if roles[0] != "system":
            messages.insert(0, {"role": "system", "content": system})
            unlearned = {at + 1 for at in unlearned}
    return Chat(
        tuple(messages),
        tools=_tools(row),
        unlearned=frozenset(unlearned),
        unread=(*unread_columns(row, *read, *ALWAYS), *dict.fromkeys(odd)),
    )


def _message(message: Message, texts: list[str], place: str) -> tuple[Message, bool]:
    """A message as templates take it, and whether an answer is to be learned."""
    message = {name: value for name, value in message.items() if value is not None}
    given = message.get("role") or message.get("from")
    if not isinstance(given, str):
        raise BadRecord(f'{place} has neither "role" nor "from"')
    role = ROLES.get(given.lower())
    if role is None:
        raise BadRecord(f'{place} has the role "{given}", none of {quoted(ROLES)}')
    if "content" in message and "value" in message and message["content"] != message["value"]:
        raise BadRecord(f'{place} has both "content" and "value"')
    if isinstance(content := message.get("content", message.get("value")), list):
        for part in content:
            if not isinstance(part.get("text"), str):
                kind = part.get("type")
                raise BadRecord(f'{place} holds a part of the type "{kind}"; only text can be learned')
    for name in NOT_READ:
        if name in message:
            raise BadRecord(f'{place} has "{name}", which cannot be read; give whole turns')
    learn = True
    for name in LEARN:
        if name in message:
            if message[name] not in (0, 1):
                raise BadRecord(f"{place} has {name} = {message[name]!r}, expected 0 or 1")
            learn = learn and bool(message[name])
    calls: list[Any] = []
    text = "\n".join(texts)
    if given.lower() in CALLS:
        calls, text = _list(_json(text, place)), ""
    if "function_call" in message:
        calls = calls + [message["function_call"]]
    if "tool_calls" in message:
        calls = calls + _list(_json(message["tool_calls"], place))
    made: Message = {"role": role, "content": clean_text(text)}
    dropped = ("role", "from", "content", "value", "tool_calls", "function_call", *LEARN)
    made |= {name: clean(value) for name, value in message.items() if name not in dropped}
    for name in THOUGHTS:
        _string(made, name)
    if calls:
        made["tool_calls"] = [_call(call, place) for call in calls]
        if role != "assistant":
            raise BadRecord(f"{place} calls a function and is the {role}'s")
    elif not any(message.get(name) is not None for name in ("content", "value")):
        raise BadRecord(f'{place} has neither "content" nor "value"')
    return made, learn


def _call(call: Any, place: str) -> dict[str, Any]:
    """{"type": "function", "function": {"name", "arguments"}}; OpenAI writes the arguments as JSON text."""
    call = clean(_json(call, place))
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRecord(f'{place} calls a function that has no "name"')
    arguments = _json(function.get("arguments") or {}, place)
    if not isinstance(arguments, dict):
        raise BadRecord(f"{place}: the arguments of {function['name']} are {described(arguments)}, no object")
    others = {"id": call["id"]} if "id" in call else {}
    return {**others, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tools(row: dict[str, Any]) -> list[Any] | None:
    tools: list[Any] = []
    for name in ("tools", "functions"):
        if isinstance(value := row.get(name), str) and not value.strip():
            continue
        for tool in _list(_json(value or [], f'"{name}"')):
            tool = clean(_json(tool, f'"{name}"'))
            function = tool.get("function", tool) if isinstance(tool, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise BadRecord(
                    f'"{name}" holds {described(tool)}, expected an object of a function with a name'
                )
            tools.append(tool if "function" in tool else {"type": "function", "function": tool})
    return tools or None


def _json(value: Any, place: str) -> Any:
    """What a value is, or what it is as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRecord(f"{place} should be JSON, and is not: {value[:40]!r}") from None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def clean(value: Any) -> Any:
    """Return a value of JSON with every string as NFC; BadRecord for what is no text."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(name)): clean(inside) for name, inside in value.items()}
    return [clean(inside) for inside in value] if isinstance(value, list) else value


def _string(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRecord(f'"{name}" is {described(value)}, expected a string')
    return clean_text(value or "")


def _of_pair(row: dict[str, Any], question: str, answer: str) -> Chat:
    """A question and its answer: strings, or the messages before the answer and those of it."""
    read = {question, answer}
    if isinstance(row[question], list) and isinstance(row[answer], list):
        found, before = [*row[question], *row[answer]], len(row[question])
        return _chat(row, found, read=read, where=f'"{question}" and "{answer}"', read_only=before)
    given = next((name for name in INPUTS if row.get(name) is not None), INPUTS[0])
    parts = [part for name in (question, given) if (part := _string(row, name)).strip()]
    if not parts:
        raise BadRecord(f'"{question}" is empty')
    found = [*_of_history(row), {"role": "user", "content": "\n".join(parts)}]
    found.append({"role": "assistant", "content": _string(row, answer)})
    return _chat(row, found, read={*read, given, "history"}, where=f'"{question}" and "{answer}"')


def _of_history(row: dict[str, Any]) -> Iterator[Message]:
    for turn in row.get("history") or []:
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn)):
            raise BadRecord('"history" is no list of pairs of question and answer')
        yield {"role": "user", "content": turn[0]}
        yield {"role": "assistant", "content": turn[1]}


def _of_segments(row: dict[str, Any]) -> Chat:
    segments = []
    for number, part in enumerate(row["segments"], 1):
        if (
            not isinstance(part, dict)
            or not isinstance(part.get("text"), str)
            or part.get("label") not in (0, 1)
        ):
            raise BadRecord(f'segment {number} has no "text" with a "label" of true or false')
        segments.append((bool(part["label"]), clean_text(part["text"])))
    if not any(learned and text.strip() for learned, text in segments):
        raise BadRecord("no segment of it is to be learned")
    return Chat(segments=tuple(segments), unread=unread_columns(row, "segments"))
