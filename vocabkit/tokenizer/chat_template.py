"""A folder's chat template, rendered as transformers does, without importing it.

Reads chat_template.jinja or tokenizer_config.json; writes nothing. render.py does it in a process of its own,
with limits.
"""

import contextlib
import datetime
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError, one_line
from vocabkit.files import read_json_object, read_text
from vocabkit.tokenizer import render as renderer

Message = dict[str, str]  # {"role": "user", "content": "…"}, as chat templates take them

CONVERSATION: list[Message] = [
    {"role": "user", "content": "Xin chào, bạn tên là gì? My name is Lan."},
    {"role": "assistant", "content": "Chào Lan! Mình là trợ lý của bạn. How can I help you today?"},
    {"role": "user", "content": "Hãy dịch câu này sang tiếng Anh: tôi yêu Việt Nam."},
]
# What a template writes around messages: with a system message of its own and with one that is given. "a" is
# a single byte, whose token every trimmed model has.
_USER, _ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}
FRAMES: list[list[Message]] = [[_USER, _ANSWER, _USER], [{"role": "system", "content": "a"}, _USER]]
MAX_TEMPLATE = 1 << 20  # characters: a hundred times the longest that we have seen
# The date that Llama 3's template takes where there is no clock: what is compared or kept must not change.
SOME_DAY = datetime.datetime(2024, 7, 26)
WAIT = 3 * renderer.TIME  # seconds, as other programs may have the processor


class OutOfBounds(UserError):
    """A chat template that takes more time or memory than any honest one."""


def read_template(folder: Path) -> str | None:
    """Return the folder's chat template, the default one if it has several, None if it has none.

    UserError for one that is no text or too long.
    """
    path, template = folder / "chat_template.jinja", None
    if path.is_file():
        template = read_text(path)
    else:
        path = folder / "tokenizer_config.json"
        template = _settings(folder).get("chat_template")
    if isinstance(template, list):  # several templates by name
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default", next(iter(named.values()), None))
    if template is not None and len(template) > MAX_TEMPLATE:
        raise UserError(
            f"{path}: the chat template is {len(template):,} characters, expected {MAX_TEMPLATE:,} at most; "
            "download it again"
        )
    return template


def _settings(folder: Path) -> dict[str, Any]:
    return read_json_object(folder / "tokenizer_config.json", missing_ok=True)


def render_chats(folder: Path, conversations: Sequence[Sequence[Message]]) -> list[str] | None:
    """Return conversations as the folder's chat template writes them, None if it has none; as render()."""
    template = read_template(folder)
    if not template:
        return None
    named = {name: value for name, value in _settings(folder).items() if name.endswith("_token")}
    texts = {name: v.get("content") if isinstance(v, Mapping) else v for name, v in named.items()}
    tokens = {name: text for name, text in texts.items() if isinstance(text, str) and text}
    return render(template, conversations, tokens=tokens, where=folder)


def render_chat(folder: Path, messages: Sequence[Message] = CONVERSATION) -> str | None:
    """render_chats() of one conversation."""
    texts = render_chats(folder, [messages])
    return texts[0] if texts else None


def frames(write: Callable[[Sequence[Message]], str | None]) -> list[str]:
    """Return FRAMES as write() renders them, without those that the template refuses."""
    texts = []
    for messages in FRAMES:
        with contextlib.suppress(UserError):
            texts.append(write(messages) or "")
    return texts


def check_bounds(folder: Path) -> None:
    """Raise OutOfBounds for a template that takes too much for one conversation.

    For those who let transformers render, in their own process.
    """
    try:
        render_chat(folder)
    except OutOfBounds:
        raise
    except UserError:  # it may want other messages
        return


def render(
    template: str,
    conversations: Sequence[Sequence[Message]],
    *,
    tokens: Mapping[str, str],
    where: Path,
    now: datetime.datetime = SOME_DAY,
) -> list[str]:
    """Return conversations in a chat template's form, ready for the model's answer; UserError if it fails.

    tokens: bos_token, eos_token … → text. where: the folder or file that the template is of.
    """
    variables = {"add_generation_prompt": True, "tools": None, "documents": None, **tokens}
    job = {"template": template, "conversations": conversations, "variables": variables}
    try:
        return list(_in_a_process(json.dumps({**job, "now": now.isoformat()})))
    except UserError as error:
        raise type(error)(f"{where}: the chat template fails: {error}; mend it, or remove it") from None


@functools.lru_cache(maxsize=64)
def _in_a_process(job: str) -> tuple[str, ...]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", renderer.__name__], input=job, capture_output=True, timeout=WAIT,
            cwd=Path(__file__).resolve().parents[2], encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise OutOfBounds(f"it takes more than {WAIT} seconds") from None
    if done.returncode:
        said = one_line(done.stderr)[-200:]
        raise OutOfBounds(f"it ends the process that renders it, with status {done.returncode} {said}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise (OutOfBounds if answer["out_of_bounds"] else UserError)(answer["error"])
    return tuple(answer["texts"])
