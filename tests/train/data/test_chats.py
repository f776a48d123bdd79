"""vocabkit/train/data/chats.py: rows of every format, as the model reads them and as it learns them."""

import json

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from tiny import CHAT_TEMPLATE
from training import MARKED, TURNS
from transformers import AutoTokenizer

from vocabkit.corpus.files import find_sources, read_blocks
from vocabkit.corpus.records import BadRecord, parse_rows
from vocabkit.errors import UserError
from vocabkit.train.data.chat_mask import IGNORED, encode_chat
from vocabkit.train.data.chats import Chat, chat_of
from vocabkit.train.data.samples import COLUMNS, samples_of
from vocabkit.train.data.tokenize import load_dataset

# ChatML that writes tools and calls, each in a line of its own.
TOOLS = (
    "{% for t in tools or [] %}<tool>{{ t | tojson }}</tool>\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FUNCTION = {"name": "thoi_tiet", "parameters": {"type": "object", "properties": {"noi": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"name": "thoi_tiet", "arguments": {"noi": "Hà Nội"}}
OPENAI_CALL = {"id": "c1", "type": "function", "function": {**CALL, "arguments": '{"noi": "Hà Nội"}'}}
SAID = '<call>thoi_tiet {"noi": "Hà Nội"}</call>'
WRITTEN_TOOL = f"<tool>{json.dumps(TOOL)}</tool>\n"


def shown(tokenizer, chat: Chat | None) -> str:
    """What the model reads, in which what it learns stands in ⟦ ⟧."""
    assert chat is not None
    ids, labels, _ = encode_chat(tokenizer, chat)
    pieces, last = [], False
    for token, label in [*zip(ids, labels, strict=True), (None, IGNORED)]:
        learned = label != IGNORED
        pieces += ["⟦" if learned else "⟧"] * (learned != last)
        pieces += [token] * (token is not None)
        last = learned
    text = "".join(piece if isinstance(piece, str) else f"\0{piece}\0" for piece in pieces)
    parts = [part for part in text.replace("⟦", "\1⟦\1").replace("⟧", "\1⟧\1").split("\1") if part]
    runs = (
        part if part in "⟦⟧" else tokenizer.decode([int(token) for token in part.split("\0") if token])
        for part in parts
    )
    return "".join(runs)


def chatml(*turns: str) -> str:
    """A conversation of "role text" in ChatML; an answer whose role is "ASSISTANT" is learned."""
    lines = []
    for turn in turns:
        role, _, text = turn.partition(" ")
        end = "<|im_end|>⟧\n" if role == "ASSISTANT" else "<|im_end|>\n"
        start = "⟦" if role == "ASSISTANT" else ""
        lines.append(f"<|im_start|>{role.lower()}\n{start}{text}{end}")
    return "".join(lines)


ASKED = ["user Hà Nội?", f"ASSISTANT {SAID}", "tool 31", "ASSISTANT 31 độ."]
PLAIN = ["user Chào", "ASSISTANT Chào bạn"]
FORMATS = {
    "openai": (
        {
            "tools": [TOOL],
            "parallel_tool_calls": None,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hà Nội?"}]},
                {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "31"},
                {"role": "assistant", "content": "31 độ."},
            ],
        },
        WRITTEN_TOOL + chatml(*ASKED),
    ),
    "openai before tools": (
        {
            "functions": [FUNCTION],
            "messages": [
                {"role": "user", "content": "Hà Nội?"},
                {"role": "assistant", "content": None, "function_call": OPENAI_CALL["function"]},
                {"role": "function", "name": "thoi_tiet", "content": "31"},
                {"role": "assistant", "content": "31 độ."},
            ],
        },
        WRITTEN_TOOL + chatml(*ASKED),
    ),
    "openai's weight": (
        {
            "messages": [
                {"role": "developer", "content": "Ngắn gọn."},
                {"role": "user", "content": "Chào"},
                {"role": "assistant", "content": "SAI", "weight": 0},
                {"role": "user", "content": "Sai rồi"},
                {"role": "assistant", "content": "Xin lỗi", "weight": 1},
            ]
        },
        chatml("system Ngắn gọn.", "user Chào", "assistant SAI", "user Sai rồi", "ASSISTANT Xin lỗi"),
    ),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "Chào"}, {"from": "GPT", "value": "Chào bạn"}],
            "system": "Ngắn gọn.",
        },
        chatml("system Ngắn gọn.", *PLAIN),
    ),
    "llama-factory": (
        {
            "conversations": [
                {"from": "human", "value": "Hà Nội?"},
                {"from": "function_call", "value": json.dumps(CALL)},
                {"from": "observation", "value": "31"},
                {"from": "gpt", "value": "31 độ."},
            ],
            "system": "Ngắn gọn.",
            "tools": json.dumps([FUNCTION]),
        },
        WRITTEN_TOOL + chatml("system Ngắn gọn.", *ASKED),
    ),
    "llama-factory's alpaca": (
        {
            "instruction": "Chào", "input": "", "output": "Chào bạn",
            "system": "Ngắn.", "history": [["a", "b"]],
        },
        chatml("system Ngắn.", "user a", "ASSISTANT b", *PLAIN),
    ),
    "alpaca": (
        {"instruction": "Dịch", "input": "chào", "output": "hello"},
        chatml("user Dịch\nchào", "ASSISTANT hello"),
    ),
    "prompt and completion": ({"prompt": "Chào", "completion": "Chào bạn"}, chatml(*PLAIN)),
    "prompt and completion as messages": (
        {"prompt": TURNS[:3], "completion": TURNS[3:]},
        chatml("user Xin chào", "assistant Chào bạn 😀!", "user Bye", "ASSISTANT Tạm biệt."),
    ),
    "axolotl": (
        {
            "conversations": [
                {"from": "human", "value": "Chào", "train": None},
                {"from": "gpt", "value": "SAI", "train": False},
                {"from": "human", "value": "Chào"},
                {"from": "gpt", "value": "Chào bạn", "training": True},
            ]
        },
        chatml("user Chào", "assistant SAI", *PLAIN),
    ),
    "axolotl's segments": (
        {"segments": [{"label": False, "text": "Hỏi\n"}, *({"label": True, "text": text} for text in "bc")]},
        "Hỏi\n⟦bc⟧",
    ),
    "messages as JSON text": (
        {"messages": json.dumps(TURNS[:2])},
        chatml("user Xin chào", "ASSISTANT Chào bạn 😀!"),
    ),
    "messages as columns": (
        {"messages": {"role": ["user", "assistant"], "content": ["Chào", "Chào bạn"]}},
        chatml(*PLAIN),
    ),
    "a call as JSON text": (
        {
            "messages": [
                {"role": "user", "content": "Hà Nội?"},
                {"role": "assistant", "tool_calls": json.dumps([CALL])},
            ]
        },
        chatml(*ASKED[:2]),
    ),
}  # fmt: skip


@pytest.fixture
def with_tools(tokenizer):
    tokenizer.chat_template = TOOLS
    return tokenizer


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_of_each_format_is_read_and_learned_right(with_tools, name):
    row, text = FORMATS[name]
    chat = chat_of(row, field=None)
    assert shown(with_tools, chat) == text
    assert chat is not None and chat.unread == ()
    assert samples_of(row, text_field=None)[0].chat == chat


@pytest.mark.parametrize("form", ["parquet", "arrow", "save_to_disk", "splits"])
def test_list_columns_of_tables(tmp_path, with_tools, form):
    """A table gives each message every key, null where it has none, and each call all arguments."""
    other = {"name": "gio", "arguments": {"mui": 7}}
    rows = [
        {"messages": FORMATS["openai"][0]["messages"][1:], "tools": json.dumps([TOOL]), "id": 1},
        {
            "messages": [TURNS[0], {"role": "assistant", "tool_calls": [{"function": other}]}],
            "tools": "",
            "id": 2,
        },
    ]
    rows[0]["messages"] = [TURNS[0], {"role": "assistant", "tool_calls": [{"function": CALL}]}, *TURNS[2:]]
    table = pa.Table.from_pylist(rows)
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "arrow":
        pa.feather.write_feather(table, path)
    elif form == "save_to_disk":
        datasets.Dataset(table).save_to_disk(path, num_shards=2)
        (path / "cache-1.arrow").write_bytes(b"of another map")
    else:
        wrong = datasets.Dataset.from_list([{"text": "of the test split"}])
        datasets.DatasetDict(train=datasets.Dataset(table), test=wrong).save_to_disk(path)
    notes: list[str] = []
    found = load_dataset([str(path)], with_tools, max_length=256, notes=notes.append)
    said = "<|im_start|>assistant\n<call>{}</call><|im_end|>\n"
    assert [with_tools.decode(ids) for ids in found["input_ids"]] == [
        WRITTEN_TOOL
        + "<|im_start|>user\nXin chào<|im_end|>\n"
        + said.format('thoi_tiet {"noi": "Hà Nội"}')
        + "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nTạm biệt.<|im_end|>\n",
        "<|im_start|>user\nXin chào<|im_end|>\n" + said.format('gio {"mui": 7}'),
    ]
    assert any('"id" is not read' in note for note in notes)
    assert (form == "splits") == any("split train is read, not test" in note for note in notes)


def chat(*answers: dict, **more) -> dict:
    return {"messages": [{"role": "user", "content": "Chào"}, *answers], **more}


OK = {"role": "assistant", "content": "Chào bạn"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat({"role": "assistant", "content": "  "}), 'message 2 of "messages" is an empty answer'),
        ({"prompt": "a", "completion": ""}, 'message 2 of "prompt" and "completion" is an empty answer'),
        ({"prompt": "", "completion": "a"}, '"prompt" is empty'),
        (chat({**OK, "role": "narrator"}, OK), 'message 2 of "messages" has the role "narrator", none of'),
        (chat({**OK, "weight": 0}), "is to be learned, all have a weight of 0"),
        (chat({**OK, "weight": 0.5}), "has weight = 0.5, expected 0 or 1"),
        (chat({**OK, "train_detail": []}), 'has "train_detail", which cannot be read'),
        (chat({**OK, "value": "Khác"}), 'has both "content" and "value"'),
        (chat({"role": "assistant", "content": None}), 'has neither "content" nor "value"'),
        (chat({"role": "user", "content": [{"type": "image_url"}]}, OK), 'a part of the type "image_url"'),
        (chat({"role": "assistant", "tool_calls": [{"function": {}}]}), 'a function that has no "name"'),
        (chat({**OK, "tool_calls": [{"name": "f", "arguments": "{"}]}), "should be JSON, and is not"),
        (chat({**OK, "tool_calls": [{"name": "f", "arguments": "3"}]}), "f are a number, no object"),
        (chat({"role": "user", "tool_calls": [CALL]}, OK), "calls a function and is the user's"),
        (chat(OK, tools="no"), '"tools" should be JSON'),
        (chat(OK, tools=[3]), '"tools" holds a number, expected an object'),
        (chat(OK, tools={"a": 1}), '"tools" holds an object, expected an object of a function with a name'),
        (chat({**OK, "thinking": 3}), '"thinking" is a number, expected a string'),
        (chat(OK, system=3), '"system" is a number, expected a string'),
        ({"messages": [{"role": "system", "content": "a"}, OK], "system": "b"}, "it has two system texts"),
        ({"messages": "xin chào"}, '"messages" is a string that is no JSON list of messages'),
        ({"instruction": "a", "output": 3}, '"output" is a number, expected a string'),
        ({"instruction": "a", "output": "b", "history": ["c"]}, '"history" is no list of pairs'),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "it is a choice"),
        ({"segments": [{"text": "a"}]}, 'segment 1 has no "text" with a "label"'),
        ({"segments": [{"label": False, "text": "a"}]}, "no segment of it is to be learned"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(row, reason):
    with pytest.raises(BadRecord, match=reason):
        chat_of(row, field=None)


def test_what_is_not_read_is_named():
    row = chat({**OK, "mood": "vui", "name": "An"}, id=3, text="Chào", note=None, system="")
    found = chat_of(row, field=None)
    assert found is not None and found.unread == ("id", "text", "messages.mood", "messages.name")
    assert found.messages[1]["mood"] == "vui", "the template may know it"
    asked = chat_of({"messages": [{**TURNS[0], "train": True}, OK]}, field=None)
    assert asked is not None and asked.unread == ("messages.train of user",)
    assert samples_of({"en": "a", "vi": "b", "id": 1}, text_field=None)[0].unread == ("id",)
    assert samples_of({"translation": {"en": "a", "vi": "b", "fr": "c"}}, text_field=None)[0].unread == (
        "translation.fr",
    )
    assert samples_of({"text": "a", "url": "b", "messages": []}, text_field=None)[0].unread == ("url",)


def test_text_field_names_the_messages():
    row = {"conversation": TURNS, "text": "no", "system": "Ngắn."}
    (sample,) = samples_of(row, text_field="conversation")
    assert sample.chat is not None and [m["role"] for m in sample.chat.messages][:2] == ["system", "user"]
    assert samples_of({"body": "một", "messages": TURNS}, text_field="body")[0].text == "một"


def test_columns_that_are_not_read_are_reported_with_file_and_line(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "Chào"}, chat(OK, id=1), chat(OK, id=2), {"conversations": TURNS, "mood": "vui"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "b.csv").write_text("id,text\n1,Chào\n", encoding="utf-8")
    for _ in range(2):  # out of the cache, too
        notes: list[str] = []
        load_dataset(
            [str(path), str(tmp_path / "b.csv")], tokenizer,
            max_length=99, cache_dir=tmp_path / "c", notes=notes.append,
        )  # fmt: skip
        assert f'{path}:2: "id" is not read (2 rows)' in notes
        assert f'{path}:4: "mood" is not read' in notes
        assert f'{tmp_path / "b.csv"}: "id" is not read' in notes


@pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_table_with_questions_and_answers_is_alpaca(tmp_path, ending, mark):
    rows = [
        ["id", "instruction", "input", "output"],
        ["1", "Dịch", "xin chào", "hello"],
        ["2", "Chào", "", "Hi"],
    ]
    path = tmp_path / f"a.{ending}"
    path.write_text("\n".join(map(mark.join, rows)) + f"\n3{mark}x\n", encoding="utf-8")
    unread: list[str] = []
    (source,) = find_sources([path])
    known = {"text_field": None, "columns": COLUMNS, "left_out": unread.extend, "notes": unread.append}
    blocks = list(read_blocks(source, block_bytes=30, **known))
    found = [item for block in blocks for item in parse_rows(block)[0]]
    bad = [why for block in blocks for why in parse_rows(block)[2]]
    said = [[m["content"] for m in samples_of(row, text_field=None)[0].chat.messages] for _, row in found]
    assert said == [["Dịch\nxin chào", "hello"], ["Chào", "Hi"]]
    assert unread == ["id"] and bad == [f"{path}:4: has 2 cells, the first line 4"]
    again = list(read_blocks(source, start=blocks[0].end, block_bytes=30, **known))
    assert again == blocks[1:] and len(blocks) > 1


def test_a_tsv_whose_first_line_has_one_such_word_has_no_header(tmp_path):
    (tmp_path / "a.tsv").write_text("output\tđầu ra\ninput\tđầu vào\n", encoding="utf-8")
    (source,) = find_sources([tmp_path / "a.tsv"])
    (block,) = read_blocks(source, text_field=None, columns=COLUMNS, block_bytes=99, notes=[].append)
    assert [row for _, row in parse_rows(block)[0]] == [["output", "đầu ra"], ["input", "đầu vào"]]


# The template


@pytest.mark.parametrize(
    ("template", "row", "reason"),
    [
        (CHAT_TEMPLATE, FORMATS["openai"][0], "does not write the call of thoi_tiet"),
        (CHAT_TEMPLATE, chat(OK, tools=[TOOL]), "does not write the tool thoi_tiet; take tools out of the"),
        (CHAT_TEMPLATE, chat({**OK, "thinking": "nghĩ"}), "does not write all of the thinking of turn 2"),
        (
            TOOLS.replace("{{ m.content }}", "{{ m.content if m.role != 'tool' }}"),
            chat({"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "ấm"}, OK),
            "does not write all of the content of turn 3",
        ),
    ],
)  # fmt: skip
def test_every_turn_must_stand_in_the_text(tokenizer, template, row, reason):
    tokenizer.chat_template = template
    found = chat_of(row, field=None)
    assert found is not None
    with pytest.raises(BadRecord, match=reason):
        encode_chat(tokenizer, found)


def test_templates_that_want_arguments_as_text(with_tools):
    row, text = FORMATS["openai"]
    for other in ("{{ c.function.arguments }}", "{{ ' ' + c.function.arguments }}"):
        with_tools.chat_template = TOOLS.replace(" {{ c.function.arguments | tojson }}", other)
        expected = text if "+" in other else text.replace("thoi_tiet {", "thoi_tiet{")
        assert shown(with_tools, chat_of(row, field=None)) == expected


def test_an_answer_with_weight_0_in_a_template_that_marks_answers_itself(tokenizer):
    tokenizer.chat_template = MARKED
    row, text = FORMATS["openai's weight"]
    expected = text.replace("SAI<|im_end|>\n", "SAI<|im_end|>").removesuffix("\n")
    assert shown(tokenizer, chat_of(row, field=None)) == expected


@pytest.mark.parametrize("name", ["qwen2.5-instruct", "qwen3", "llama-3.2-instruct"])
def test_calls_in_real_templates(name, real_source):
    tokenizer = AutoTokenizer.from_pretrained(real_source(name))
    for kind in ("openai", "llama-factory"):
        learned = [
            run.split("⟧")[0]
            for run in shown(tokenizer, chat_of(FORMATS[kind][0], field=None)).split("⟦")[1:]
        ]
        assert len(learned) == 2
        assert "thoi_tiet" in learned[0] and '"noi": "Hà Nội"' in learned[0]
        end = "<|eot_id|>" if name.startswith("llama") else "<|im_end|>"
        assert (
            learned[0].endswith(end) and learned[1].removeprefix("<think>\n\n</think>\n\n") == f"31 độ.{end}"
        )


def test_a_row_that_is_nothing_else_is_refused_with_its_columns(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"dialogue": TURNS}), encoding="utf-8")
    with pytest.raises(
        UserError, match='a.jsonl:1: no "text", "messages", "conversations" among its fields: "dia'
    ):
        load_dataset([str(path)], tokenizer, max_length=99, notes=print)
