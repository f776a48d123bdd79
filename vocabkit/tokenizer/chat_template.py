"""A folder's chat template, rendered without transformers, which would cost seconds to import.

Reads chat_template.jinja or tokenizer_config.json; writes nothing.
"""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError
from vocabkit.files import read_json_object

CONVERSATION = [
    {"role": "user", "content": "Xin chào, bạn tên là gì? My name is Lan."},
    {"role": "assistant", "content": "Chào Lan! Mình là trợ lý của bạn. How can I help you today?"},
    {"role": "user", "content": "Hãy dịch câu này sang tiếng Anh: tôi yêu Việt Nam."},
]


def read_template(folder: Path) -> str | None:
    """Return the folder's chat template, the default one if it has several, None if it has none."""
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else _settings(folder).get("chat_template")
    if isinstance(template, list):  # several templates by name
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default", next(iter(named.values()), None))
    return template


def _settings(folder: Path) -> dict[str, Any]:
    return read_json_object(folder / "tokenizer_config.json", missing_ok=True)


def render_chat(folder: Path, messages: Sequence[Mapping[str, str]] = CONVERSATION) -> str | None:
    """Return the folder's chat template rendered for a conversation, None if it has none.

    The environment is that of transformers (utils/chat_template_utils.py), which would cost seconds to
    import.
    """
    template, settings = read_template(folder), _settings(folder)
    if not template:
        return None
    tokens = {
        name: value["content"] if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name.endswith("_token") and value
    }
    return render(template, messages, tokens=tokens, where=folder)


def render(
    template: str, messages: Sequence[Mapping[str, str]], *, tokens: Mapping[str, str], where: Path
) -> str:
    """Return messages in a chat template's form, ready for the model's answer; UserError if it fails.

    tokens: bos_token, eos_token … → text. where: the folder or file that the template is of.
    """
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.globals.update(
        raise_exception=refuse, strftime_now=lambda form: datetime.date(2024, 7, 26).strftime(form)
    )
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, tools=None, documents=None, **tokens
        )
    except jinja2.TemplateError as error:
        raise UserError(f"{where}: the chat template fails: {error}; mend it, or remove it") from None


Message = dict[str, str]  # {"role": "user", "content": "…"}, as chat templates take them
