"""Chat templates: rendered as transformers does, with limits, and what fails is one line."""

import datetime

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.tokenizer import render as renderer
from vocabkit.tokenizer.chat_template import (
    CONVERSATION,
    MAX_TEMPLATE,
    OutOfBounds,
    check_bounds,
    read_template,
    render,
    render_chat,
    render_chats,
)

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
ODD = [
    {"role": "system", "content": "Viết <b>ngắn</b> & 'rõ'."},
    {"role": "user", "content": 'á<b "x" \\ \u2028 👍🏽 \t'},
    {"role": "assistant", "content": ""},
    {"role": "tool", "content": "  1\n"},
]
SAME = {
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "generation keeps what is set": "{% set n = namespace(k=0) %}{% for m in messages %}{%- generation -%}\n"
    "{% set n.k = n.k + 1 %} {{ n.k }}{{ loop.index }} {% endgeneration %}\n{% endfor %}{{ n.k }}",
    "tojson": "{% for m in messages %}{{ m | tojson }}{% endfor %}",
    "tojson's arguments": "{{ messages | tojson(ensure_ascii=True, indent=2, separators=(',', ':'), "
    "sort_keys=True) }}{{ messages[0] | tojson(indent=1) }}{{ tools | tojson(ensure_ascii=False) }}",
    "loop controls": "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}"
    "{% if loop.last %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "white space": "  {% if true %}  \n a \n  {%- endif %}\n\n{# note #}\n{{ bos_token }}\n",
    "what is not there": "{{ nothing }}{% if tools is defined and not tools %}T{% endif %}"
    "{{ documents is none }}{{ add_generation_prompt }}{{ messages[0].nothing }}{{ eos_token }}",
    "filters and macros": "{% macro say(m, end='.') %}{{ m.content | trim | upper }}{{ end }}{% endmacro %}"
    "{% for m in messages %}{{ say(m) }}{{ m.role.startswith('u') }}{% endfor %}"
    "{{ dict(a=1).items() | list }}{{ '%s-%d' % ('a', 2) }}{{ messages | length }}{{ range(3) | join }}",
}


@pytest.mark.parametrize("template", SAME.values(), ids=SAME)
def test_templates_render_as_transformers_renders_them(tmp_path, template):
    conversations = [CONVERSATION, ODD]
    wanted, _ = render_jinja_template(
        conversations, chat_template=template, add_generation_prompt=True, **TOKENS
    )
    assert render(template, conversations, tokens=TOKENS, where=tmp_path) == wanted


@pytest.mark.assets
@pytest.mark.parametrize("name", ["qwen2.5-instruct", "qwen3", "gemma-2-it"])
def test_real_templates_render_as_transformers_renders_them(real, name):
    folder = real(name).path
    settings = read_json(folder / "tokenizer_config.json")
    tokens = {key: value for key, value in settings.items() if key.endswith("_token") and value}
    wanted, _ = render_jinja_template(
        [CONVERSATION], chat_template=read_template(folder), add_generation_prompt=True, **tokens
    )
    assert render_chats(folder, [CONVERSATION]) == wanted


def test_a_date_is_that_of_the_clock_that_is_given(tmp_path):
    now = datetime.datetime(2026, 11, 2, 3, 4, 5)
    found = render("{{ strftime_now('%d %b %Y %H:%M:%S') }}", [[]], tokens={}, where=tmp_path, now=now)
    assert found == ["02 Nov 2026 03:04:05"]


FAILS = {
    "{{ 1/0 }}": "ZeroDivisionError: division by zero",
    "{{ 1 + 'a' }}": "TypeError: unsupported operand",
    "{% include '/etc/passwd' %}": "TypeError: no loader",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "RecursionError: maximum recursion depth exceeded",
    "{{ raise_exception('never\nagain') }}": "fails: never\nagain; mend it",
    "{% if %}": "Expected an expression",
    "{{ nothing.at.all }}": "'nothing' is undefined",
    "{{ messages.append(1) }}": "unsafe",
    "{{ ''.__class__.__mro__ }}": "unsafe",
    "{{ nothing | tojson }}": "TypeError: Object of type Undefined is not JSON",
}


@pytest.mark.parametrize(("template", "reason"), FAILS.items())
def test_what_fails_is_said_with_the_folder(tmp_path, template, reason):
    with pytest.raises(UserError) as error:
        render(template, [CONVERSATION], tokens={}, where=tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: the chat template fails: ")
    assert reason in str(error.value) and not isinstance(error.value, OutOfBounds)


TOO_MUCH = {
    "{{ 'a' * 10**10 }}": "takes more than 1,024 MiB of memory",
    "{{ 'a' * 20000000 }}": "writes 20,000,000 characters, expected 16,777,216 at most",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "takes more than",
}


@pytest.mark.parametrize(("template", "reason"), TOO_MUCH.items())
def test_a_template_has_limits(tmp_path, monkeypatch, template, reason):
    monkeypatch.setattr("vocabkit.tokenizer.chat_template.WAIT", 2)
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": template})
    with pytest.raises(OutOfBounds, match=reason):
        check_bounds(tmp_path)


def test_the_process_limits_itself_where_nobody_waits(monkeypatch):
    resource = pytest.importorskip("resource")
    set_to = {}
    monkeypatch.setattr(resource, "setrlimit", set_to.__setitem__)
    monkeypatch.setattr(resource, "getrlimit", lambda what: (0, resource.RLIM_INFINITY))
    monkeypatch.setattr(renderer.signal, "signal", lambda number, handler: set_to.update(handler=handler))
    renderer._limit()
    assert set_to[resource.RLIMIT_CPU] == (10, 15) and set_to[resource.RLIMIT_AS] == (1 << 30, 1 << 30)
    with pytest.raises(renderer.OutOfBounds, match="more than 10 seconds"):
        set_to["handler"](0, None)


def test_a_template_that_only_wants_other_messages_is_within_bounds(tmp_path):
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": "{{ raise_exception('no') }}"})
    check_bounds(tmp_path)
    check_bounds(tmp_path / "missing")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x" * (MAX_TEMPLATE + 1), "is 1,048,577 characters, expected"),
        ({"default": "x"}, r"is {.default.: .x.}, expected a string"),
        ([{"name": "default", "template": 5}], "is 5, expected a string"),
    ],
)
def test_a_template_that_is_none_is_refused(tmp_path, value, reason):
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": value})
    with pytest.raises(UserError, match=reason):
        render_chat(tmp_path)


def test_the_default_one_of_several_is_taken(tmp_path):
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": several})
    assert read_template(tmp_path) == "D"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template.jinja is not UTF-8 text \(byte 0\)"):
        read_template(tmp_path)


def test_a_folder_without_a_template_renders_nothing(tmp_path):
    assert render_chat(tmp_path) is None and render_chats(tmp_path, []) is None
