"""The Modelfile that tells Ollama how to talk to an exported GGUF.

Reads generation_config.json and tokenizer_config.json; writes nothing. Ollama writes its prompts with a Go
template instead of the model's own: the three below are the turns of ChatML (Qwen), Llama 3 and Gemma, told
apart by the token that ends a turn. Format: docs/modelfile of ollama/ollama.
"""

from pathlib import Path

from vocabkit.files import read_json_object
from vocabkit.gguf.vocab import GgufVocab

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
TEMPLATES = {"<|im_end|>": _CHATML, "<|eot_id|>": _LLAMA3, "<end_of_turn>": _GEMMA}
# generation_config.json → PARAMETER
PARAMETERS = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty",
}  # fmt: skip
_DEFAULT_SYSTEM = "You are"  # how the default system text of a template begins


def modelfile(gguf_name: str, vocab: GgufVocab, folder: Path) -> str:
    """Return the text of a Modelfile for a GGUF beside it, made from this checkpoint folder."""
    ends = [vocab.tokens[vocab.ids[kind]] for kind in ("eot", "eos") if kind in vocab.ids]
    template = next((TEMPLATES[end] for end in ends if end in TEMPLATES), None)
    lines = [f"FROM ./{gguf_name}"]
    if template and vocab.chat_template:
        lines.append(f'TEMPLATE """{template}"""')
        if system := _system(vocab.chat_template):
            lines.append(f'SYSTEM """{system}"""')
    lines += [f'PARAMETER stop "{end}"' for end in dict.fromkeys(ends)]
    settings = read_json_object(folder / "generation_config.json", missing_ok=True)
    for name, parameter in PARAMETERS.items():
        if isinstance(settings.get(name), int | float):
            lines.append(f"PARAMETER {parameter} {settings[name]}")
    return "\n".join(lines) + "\n"


def _system(template: str) -> str | None:
    """Return the system text that a ChatML template writes when none is given, as Qwen2.5's does."""
    start = template.find(f"<|im_start|>system\\n{_DEFAULT_SYSTEM}")
    if start < 0:
        return None
    begin = start + len("<|im_start|>system\\n")
    end = template.find("<|im_end|>", begin)
    text = template[begin:end]
    return text if 0 < len(text) < 500 and "{" not in text and "'" not in text else None
