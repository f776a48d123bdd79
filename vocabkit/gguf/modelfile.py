"""The Modelfile that tells Ollama how to talk to an exported GGUF.

Reads generation_config.json and tokenizer_config.json; writes nothing. Ollama writes its prompts with a Go
template instead of the model's own: the three below are the turns of ChatML (Qwen), Llama 3 and Gemma. One is
taken only where the model's own template writes the same prompt, turn for turn; a default system text is what
stands in that prompt. What cannot be carried is left out and said. Format: docs/modelfile of ollama/ollama.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path

from vocabkit.errors import UserError
from vocabkit.files import read_json_object
from vocabkit.gguf.vocab import GgufVocab
from vocabkit.tokenizer.chat_template import CONVERSATION, Message, render_chat

_CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ range .Messages }}{{ if ne .Role "system" }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}{{ end }}<|im_start|>assistant
"""
_LLAMA3 = """{{ if .System }}<|start_header_id|>system<|end_header_id|>

{{ .System }}<|eot_id|>{{ end }}{{ range .Messages }}{{ if ne .Role "system" }}\
<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}{{ end }}<|start_header_id|>assistant<|end_header_id|>

"""
_GEMMA = """{{ $system := .System }}{{ range $at, $message := .Messages }}{{ if eq .Role "user" }}\
<start_of_turn>user
{{ if and $system (eq $at 0) }}{{ $system }}

{{ end }}{{ .Content }}<end_of_turn>
{{ else if eq .Role "assistant" }}<start_of_turn>model
{{ .Content }}<end_of_turn>
{{ end }}{{ end }}<start_of_turn>model
"""


@dataclass(frozen=True)
class Turns:
    """How a family writes a conversation: as a Go template, and as what stands around each text.

    roles: before what each role says; end: after it. system: before and after a system text; None where the
    family has no such role.
    """

    go: str
    roles: dict[str, str]
    end: str
    system: tuple[str, str] | None

    def prompt(self, messages: Sequence[Message], system: str | None) -> str:
        """Return what the Go template makes of a conversation, as far as it begins with a system text."""
        first = "".join((self.system[0], system, self.system[1])) if system and self.system else ""
        turns = [self.roles[message["role"]] + message["content"] + self.end for message in messages]
        return first + "".join(turns) + self.roles["assistant"]


_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
# What ends a turn → the family
TEMPLATES = {
    "<|im_end|>": Turns(
        _CHATML,
        {"user": "<|im_start|>user\n", "assistant": "<|im_start|>assistant\n"},
        "<|im_end|>\n",
        ("<|im_start|>system\n", "<|im_end|>\n"),
    ),
    "<|eot_id|>": Turns(
        _LLAMA3,
        {"user": _HEADER.format("user"), "assistant": _HEADER.format("assistant")},
        "<|eot_id|>",
        (_HEADER.format("system"), "<|eot_id|>"),
    ),
    "<end_of_turn>": Turns(
        _GEMMA,
        {"user": "<start_of_turn>user\n", "assistant": "<start_of_turn>model\n"},
        "<end_of_turn>\n",
        None,
    ),
}
# generation_config.json → PARAMETER
PARAMETERS = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty",
}  # fmt: skip
_OWN_SYSTEM = "Hãy trả lời ngắn gọn."  # how a template treats a system text that is given


@dataclass
class Modelfile:
    """The text, and what the model has that the text does not carry."""

    text: str = ""
    left_out: list[str] = default(default_factory=list)


def modelfile(gguf_name: str, vocab: GgufVocab, folder: Path) -> Modelfile:
    """Return a Modelfile for a GGUF beside it, made from this checkpoint folder.

    Raises UserError for a name that no line of it can hold.
    """
    if not gguf_name.isprintable():
        raise UserError(f"{gguf_name!r} has characters that a Modelfile cannot hold; give -o another name")
    made = Modelfile()
    ends = [vocab.tokens[vocab.ids[kind]] for kind in ("eot", "eos") if kind in vocab.ids]
    lines = [f"FROM ./{gguf_name}"]
    if vocab.chat_template:
        found = _turns(vocab, folder)
        if found is None:
            made.left_out.append(
                "TEMPLATE: the model's chat template writes no turns of ChatML, Llama 3 or Gemma; give "
                "Ollama one of your own, or run the file with llama-server --jinja"
            )
        else:
            turns, system, own, begun = found
            lines.append(f'TEMPLATE """{turns.go}{begun}"""')
            if not own:
                made.left_out.append("what the model's chat template adds to a system text of your own")
            if system and _quotable(system):
                lines.append(f'SYSTEM """{system}"""')
            elif system:
                made.left_out.append(f"SYSTEM: the quotes in the default system text {system[:40]!r}")
    for end in dict.fromkeys(ends):
        if end.isprintable() and '"' not in end and "\\" not in end:
            lines.append(f'PARAMETER stop "{end}"')
        else:
            made.left_out.append(f"PARAMETER stop: the token {end!r} cannot be quoted")
    settings = read_json_object(folder / "generation_config.json", missing_ok=True)
    for name, parameter in PARAMETERS.items():
        value = settings.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            lines.append(f"PARAMETER {parameter} {value}")
    made.text = "\n".join(lines) + "\n"
    return made


def _quotable(text: str) -> bool:
    """Whether a text can stand between three quotes: these end where the next three stand."""
    return '"""' not in text and not text.startswith('"') and not text.endswith('"')


def _turns(vocab: GgufVocab, folder: Path) -> tuple[Turns, str | None, bool, str] | None:
    """Return the family whose prompts the model's template writes, its default system text, whether a given
    one is written as the family does, and with what each answer begins ("<think>"); None for another form.
    """
    try:
        prompt = render_chat(folder)
    except UserError:
        return None
    if prompt is None:
        return None
    begin = vocab.tokens[vocab.ids["bos"]] if "bos" in vocab.ids else ""
    for turns in TEMPLATES.values():
        plain = turns.prompt(CONVERSATION, None)
        first, found, begun = prompt.partition(plain)
        if not found or "{{" in begun or not _quotable(begun):
            continue
        own = _writes_system(turns, folder, begin, begun)
        if first in ("", begin):  # llama.cpp puts the token there that a text begins with
            return turns, None, own, begun
        before, after = turns.system or ("", "")
        first = first if first.startswith(before) else first.removeprefix(begin)
        if turns.system is None or not (first.startswith(before) and first.endswith(after)):
            return None
        return turns, first[len(before) : -len(after)], own, begun
    return None


def _writes_system(turns: Turns, folder: Path, begin: str, begun: str) -> bool:
    if turns.system is None:  # Gemma has no system role
        return True
    messages = [{"role": "system", "content": _OWN_SYSTEM}, *CONVERSATION]
    try:
        prompt = render_chat(folder, messages)
    except UserError:
        return False
    wanted = turns.prompt(CONVERSATION, _OWN_SYSTEM) + begun
    return prompt in (wanted, begin + wanted)
