"""The Modelfile for Ollama: the turns of a model's family, its settings, its default system text."""

import pytest

from vocabkit.files import write_json
from vocabkit.gguf.modelfile import TEMPLATES, modelfile
from vocabkit.gguf.vocab import CONTROL, GgufVocab

CHATML = "{% if not system %}<|im_start|>system\\nYou are Q, made by A.<|im_end|>\\n{% endif %}"


def vocab(end: str, *, template: str | None = "{{ messages }}") -> GgufVocab:
    """Of two tokens: the end of a turn, and the end of a text."""
    ids = {"eot": 0, "eos": 1}
    return GgufVocab("gpt2", "qwen2", [end, "</s>"], [CONTROL] * 2, ids=ids, chat_template=template)


@pytest.mark.parametrize("end", TEMPLATES)
def test_the_token_that_ends_a_turn_tells_the_template(tmp_path, end):
    text = modelfile("m.gguf", vocab(end), tmp_path)
    assert text == (
        f'FROM ./m.gguf\nTEMPLATE """{TEMPLATES[end]}"""\nPARAMETER stop "{end}"\nPARAMETER stop "</s>"\n'
    )
    assert end in TEMPLATES[end]


def test_without_a_template_or_a_known_end_the_stops_alone(tmp_path):
    wanted = 'FROM ./m.gguf\nPARAMETER stop "{}"\nPARAMETER stop "</s>"\n'
    assert modelfile("m.gguf", vocab("<|im_end|>", template=None), tmp_path) == wanted.format("<|im_end|>")
    assert modelfile("m.gguf", vocab("<|end|>"), tmp_path) == wanted.format("<|end|>")


def test_settings_of_generation_config_are_parameters(tmp_path):
    settings = {"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.05, "top_p": None, "do_sample": True}
    write_json(tmp_path / "generation_config.json", settings)
    parameters = modelfile("m.gguf", vocab("<|im_end|>"), tmp_path).splitlines()[-3:]
    assert parameters == [
        "PARAMETER temperature 0.7", "PARAMETER top_k 20", "PARAMETER repeat_penalty 1.05",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("template", "system"),
    [
        (CHATML, "You are Q, made by A."),
        (CHATML.replace("Q", "{{ name }}"), None),
        (CHATML.replace("You are", "Be"), None),
        (CHATML.replace("Q", "Q" * 500), None),
    ],
    ids=["plain", "computed", "another", "long"],
)
def test_the_system_text_that_a_template_has_of_its_own(tmp_path, template, system):
    text = modelfile("m.gguf", vocab("<|im_end|>", template=template), tmp_path)
    assert (f'SYSTEM """{system}"""\n' in text) == (system is not None)
    assert text.count("\nSYSTEM ") == (system is not None)
