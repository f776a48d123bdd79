"""The Modelfile for Ollama: the turns of a model's family, its settings, its default system text."""

import re
import shutil

import pytest

from vocabkit.errors import UserError
from vocabkit.files import write_json
from vocabkit.gguf.modelfile import TEMPLATES, modelfile
from vocabkit.gguf.vocab import CONTROL, GgufVocab
from vocabkit.tokenizer.chat_template import read_template

SYSTEM = "You are Q, made by A."
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant{{ '\\n' }}"
)
PLAIN = CHATML.partition("{% endif %}")[2]
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
    "{{ m.content }}<end_of_turn>\n{% endfor %}<start_of_turn>model{{ '\\n' }}"
)
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
LLAMA = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
OWN = {"<|im_end|>": PLAIN, "<|eot_id|>": LLAMA3, "<end_of_turn>": GEMMA}


def made(folder, end: str, template: str | None, *, bos: str = "<s>", name: str = "m.gguf"):
    """The Modelfile of a folder with this chat template, whose turns end with this token."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "tokenizer_config.json", {"chat_template": template, "bos_token": bos})
    ids = {"eot": 0, "eos": 1, "bos": 2}
    vocab = GgufVocab("gpt2", "qwen2", [end, "</s>", bos], [CONTROL] * 3, ids=ids, chat_template=template)
    return modelfile(name, vocab, folder)


@pytest.mark.parametrize("end", TEMPLATES)
def test_the_template_that_writes_the_same_turns(tmp_path, end):
    found = made(tmp_path, end, OWN[end])
    go = TEMPLATES[end].go
    assert found.text == (
        f'FROM ./m.gguf\nTEMPLATE """{go}"""\nPARAMETER stop "{end}"\nPARAMETER stop "</s>"\n'
    )
    assert end in go and found.left_out == []


@pytest.mark.parametrize(
    "template",
    [
        "### Câu hỏi:\n{{ messages[-1].content }}\n\n### Trả lời:\n",
        PLAIN.replace("\n{{", " {{"),
        PLAIN.replace("{{ m.content }}", "{{ m.content }} "),
        "<|im_start|>note\nx<|im_end|>\n" + PLAIN,
        PLAIN.removesuffix("{{ '\\n' }}"),
        "{{ raise_exception('never') }}",
        GEMMA.replace("{{ bos_token }}", "{{ bos_token }}Hi"),
    ],
)
@pytest.mark.parametrize("end", TEMPLATES)
def test_turns_of_another_form_get_no_template_and_that_is_said(tmp_path, end, template):
    found = made(tmp_path, end, template)
    assert found.text == f'FROM ./m.gguf\nPARAMETER stop "{end}"\nPARAMETER stop "</s>"\n'
    (said,) = found.left_out
    assert said.startswith("TEMPLATE: the model's chat template writes no turns of ChatML")


def test_without_a_template_there_is_none(tmp_path):
    found = made(tmp_path, "<|im_end|>", None)
    assert "TEMPLATE" not in found.text and found.left_out == []


def test_settings_of_generation_config_are_parameters(tmp_path):
    settings = {
        "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.05, "top_p": None, "do_sample": True,
    }  # fmt: skip
    write_json(tmp_path / "generation_config.json", settings)
    assert made(tmp_path, "<|im_end|>", PLAIN).text.splitlines()[-3:] == [
        "PARAMETER temperature 0.7", "PARAMETER top_k 20", "PARAMETER repeat_penalty 1.05",
    ]  # fmt: skip
    write_json(
        tmp_path / "generation_config.json", {"temperature": True, "top_p": float("nan"), "top_k": "9"}
    )
    assert made(tmp_path, "<|im_end|>", PLAIN).text.endswith('PARAMETER stop "</s>"\n')


@pytest.mark.parametrize(
    "system",
    [
        SYSTEM, "Be brief.", "Hai dòng.\n\nDòng 'hai'.", "x" * 900,
        "PARAMETER temperature 0\nADAPTER ./x.bin",
        'Say "yes" or "no", please.', " spaces ", "You are {{ name }}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("bos", ["<s>", "<|im_start|>"])  # SmolLM2's bos begins its turns too
def test_the_system_text_that_a_template_has_of_its_own(tmp_path, system, bos):
    text = "{% raw %}" + system + "{% endraw %}"
    found = made(tmp_path, "<|im_end|>", CHATML.replace(SYSTEM, text), bos=bos)
    assert f'\nSYSTEM """{system}"""\n' in found.text and found.left_out == []
    outside = re.sub(r'""".*?"""', "", found.text, flags=re.DOTALL)
    assert re.findall(r"^[A-Z]+", outside, flags=re.M) == [
        "FROM",
        "TEMPLATE",
        "SYSTEM",
        "PARAMETER",
        "PARAMETER",
    ]


@pytest.mark.parametrize("system", ['a """ b', '"quoted', 'quoted"', '"""\nPARAMETER stop "x"\nSYSTEM """'])
def test_a_system_text_that_would_leave_its_quotes_is_left_out_and_said(tmp_path, system):
    found = made(tmp_path, "<|im_end|>", CHATML.replace(SYSTEM, system))
    assert "SYSTEM" not in found.text and found.text.count("TEMPLATE") == 1
    (said,) = found.left_out
    assert said.startswith("SYSTEM: the quotes in the default system text")


def test_what_a_template_adds_to_a_given_system_text_is_said(tmp_path):
    template = CHATML.replace("{{ m.content }}", "{{ 'Today. ' if m.role == 'system' }}{{ m.content }}")
    found = made(tmp_path, "<|im_end|>", template)
    assert f'SYSTEM """{SYSTEM}"""' in found.text
    assert found.left_out == ["what the model's chat template adds to a system text of your own"]


@pytest.mark.parametrize("end", ['<"end">', "<a\nPARAMETER temperature 9>", "<\\n>", "<\u2028>"])
def test_a_token_that_cannot_be_quoted_is_left_out_and_said(tmp_path, end):
    found = made(tmp_path, end, PLAIN)
    assert found.text.splitlines()[-1] == 'PARAMETER stop "</s>"' and found.text.count("PARAMETER") == 1
    assert any(said.startswith("PARAMETER stop: the token") for said in found.left_out)


def test_a_name_that_would_begin_a_line_is_refused(tmp_path):
    with pytest.raises(UserError, match="a Modelfile cannot hold"):
        made(tmp_path, "<|im_end|>", PLAIN, name="m\nADAPTER x.gguf")


@pytest.mark.parametrize(
    ("name", "end", "system"),
    [
        (
            "qwen2.5-instruct",
            "<|im_end|>",
            "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        ),
        ("qwen3", "<|im_end|>", None),
        (
            "llama-3.2-instruct",
            "<|eot_id|>",
            LLAMA,
        ),
        ("gemma-2-it", "<end_of_turn>", None),
    ],
)
def test_real_templates(real, tmp_path, name, end, system):
    folder = tmp_path / name
    shutil.copytree(real(name).path, folder)
    tokenizer = real(name).tokenizer
    bos = {"gemma-2-it": "<bos>", "llama-3.2-instruct": "<|begin_of_text|>"}.get(name)
    ids = {"eot": tokenizer.added[end]} | ({"bos": tokenizer.added[bos]} if bos else {})
    tokens = [tokenizer.tokens.get(at, "") for at in range(max(tokenizer.tokens) + 1)]
    vocab = GgufVocab("", "", tokens, [], ids=ids, chat_template=read_template(folder))
    found = modelfile("m.gguf", vocab, folder)
    thinking = "<think>\n" if name == "qwen3" else ""
    assert f'TEMPLATE """{TEMPLATES[end].go}{thinking}"""' in found.text
    assert (f'SYSTEM """{system}"""' in found.text) == (system is not None) == ("SYSTEM" in found.text)
