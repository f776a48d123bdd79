"""vocabkit/tokenizer/tokenizer_json.py: what is read, what is refused and how, what is written."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import REAL_NAMES, TINY_KINDS
from tokenizers import Tokenizer, models

from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import (
    BYTE_FALLBACK_BPE,
    BYTE_LEVEL_BPE,
    UNIGRAM,
    TokenizerJson,
    dump_tokenizer_json,
    library_ids,
    read_tokenizer_json,
)

FAMILY = {"qwen": BYTE_LEVEL_BPE, "llama3": BYTE_LEVEL_BPE, "gemma": BYTE_FALLBACK_BPE, "t5": UNIGRAM}
NOT_SUPPORTED = "this kind of tokenizer is not supported"


def put(data: dict, where: str, value: object) -> None:
    """Set a field given as "model.merges.0"."""
    *path, last = [int(part) if part.isdigit() else part for part in where.split(".")]
    for part in path:
        data = data[part]
    data[last] = value


def refuse(tiny, tmp_path, kind: str, changes: dict[str, object]) -> str:
    """Return the message with which a tiny folder is refused after changes to its tokenizer.json."""
    data = copy.deepcopy(tiny(kind).tokenizer.data)
    for where, value in changes.items():
        put(data, where, value(data) if callable(value) else value)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_tokenizer_json(tmp_path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


# Reading


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_what_is_read(tiny, kind):
    tokenizer = tiny(kind).tokenizer
    library = Tokenizer.from_file(str(tokenizer.path))
    assert tokenizer.family == FAMILY[kind]
    assert tokenizer.vocab | tokenizer.added == library.get_vocab(with_added_tokens=True)
    assert tokenizer.tokens == {i: library.id_to_token(i) for i in range(library.get_vocab_size())}
    assert list(tokenizer.tokens) == sorted(tokenizer.tokens)
    assert set(tokenizer.added.values()) == set(library.get_added_tokens_decoder())


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_token_bytes_are_what_the_library_decodes(tiny, kind):
    folder = tiny(kind)
    for token_id, data in folder.tokenizer.token_bytes.items():
        text = folder.encoder.decode([token_id], skip_special_tokens=False)
        expected = data.decode("utf-8", errors="replace")
        # T5 takes the space before its first word away
        assert text == (expected.removeprefix(" ") if kind == "t5" else expected)


def test_byte_ids(tiny):
    assert len(tiny("qwen").tokenizer.byte_ids()) == len(tiny("gemma").tokenizer.byte_ids()) == 256
    assert tiny("t5").tokenizer.byte_ids() == set()
    gemma = tiny("gemma").tokenizer
    data = {gemma.token_bytes[token_id] for token_id in gemma.byte_ids()}
    assert data == {bytes([byte]) for byte in range(256)}


def test_referenced_ids(tiny):
    llama, t5 = tiny("llama3").tokenizer, tiny("t5").tokenizer
    assert llama.referenced_ids() == {llama.added["<|begin|>"], llama.added["<|end|>"]}
    lowest = min(range(len(t5.data["model"]["vocab"])), key=lambda i: t5.data["model"]["vocab"][i][1])
    assert t5.referenced_ids() == {*t5.added.values(), lowest}


def test_oldest_files_have_no_type(tiny, tmp_path):
    data = copy.deepcopy(tiny("qwen").tokenizer.data)
    del data["model"]["type"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    assert read_tokenizer_json(tmp_path).family == BYTE_LEVEL_BPE


def test_a_byte_level_normalizer_is_byte_level_too(tiny, tmp_path):
    data = copy.deepcopy(tiny("qwen").tokenizer.data)
    data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}]}
    data["pre_tokenizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    assert read_tokenizer_json(tmp_path).family == BYTE_LEVEL_BPE


# Refusing files


def test_no_folder_and_no_file(tmp_path):
    with pytest.raises(
        UserError, match="absent is not a folder; give the folder of a Hugging Face checkpoint"
    ):
        read_tokenizer_json(tmp_path / "absent")
    with pytest.raises(
        UserError, match=r"tokenizer.json is missing; make it first: python3 -c .*save_pretrained"
    ):
        read_tokenizer_json(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"version": "1.0", ', r"tokenizer.json:1 is not JSON"),
        (b"\xff\xfe{}", r"tokenizer.json is not UTF-8 text \(byte 0\)"),
        (b"[]", r"tokenizer.json holds a list, expected an object"),
        (b"{}", r"tokenizer.json is damaged \(KeyError: 'model'\); download"),
        (b'{"version": "1.0", "model": null}', r"is damaged \(AttributeError"),
        (b'{"version": "1.0", "model": {"type": "Unigram", "vocab": 7}}', r"is damaged \(TypeError"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_tokenizer_json(tmp_path)


@given(data=st.data())
def test_any_missing_or_wrong_field_is_a_user_error(tiny, tmp_path_factory, data):
    """Whatever is cut out of a file or replaced, it is read or refused, never a traceback."""
    broken = copy.deepcopy(tiny(data.draw(st.sampled_from(TINY_KINDS))).tokenizer.data)
    at = broken
    for _ in range(data.draw(st.integers(0, 2))):
        inner = [
            k for k in (at if isinstance(at, dict) else range(len(at))) if isinstance(at[k], dict | list)
        ]
        inner = [key for key in inner if len(at[key])]
        if not inner:
            break
        at = at[data.draw(st.sampled_from(inner))]
    key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    value = data.draw(st.sampled_from([None, 7, -7, "x", [], {}, [["a"]], "DELETE"]))
    if value == "DELETE":
        del at[key]
    else:
        at[key] = value
    folder = tmp_path_factory.mktemp("broken")
    (folder / "tokenizer.json").write_text(json.dumps(broken), encoding="utf-8")
    try:
        read_tokenizer_json(folder)
    except UserError as error:
        assert str(folder) in str(error)


# Refusing kinds of tokenizers


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("qwen", {"version": "2.0"}, "version is '2.0', expected '1.0'"),
        ("qwen", {"new_field": 1}, "new_field is 1, expected no such field"),
        ("qwen", {"model.new_field": [2]}, "model.new_field is [2], expected no such field"),
        ("t5", {"model.merges": []}, "model.merges is [], expected no such field"),
        ("qwen", {"model.dropout": 0.1}, "model.dropout is 0.1, expected null"),
        ("qwen", {"model.continuing_subword_prefix": "##"}, "model.continuing_subword_prefix is '##'"),
        ("qwen", {"model.end_of_word_suffix": "</w>"}, "model.end_of_word_suffix is '</w>', expected none"),
        ("gemma", {"model.byte_fallback": False}, "model.byte_fallback is False, expected true"),
        ("qwen", {"model.type": "WordPiece"}, "model.type is 'WordPiece', expected 'BPE' or 'Unigram'"),
        ("qwen", {"model.type": "WordLevel"}, "model.type is 'WordLevel', expected 'BPE' or 'Unigram'"),
        (
            "t5",
            {"model.vocab.20": lambda data: data["model"]["vocab"][21]},
            "number of different tokens is",
        ),
        (
            "qwen",
            {"post_processor": {"type": "Unheard"}},
            "post_processor is 'Unheard', expected ByteLevel or TemplateProcessing",
        ),
    ],
)
def test_kinds_that_are_not_supported(tiny, tmp_path, kind, changes, message):
    found = refuse(tiny, tmp_path, kind, changes)
    assert message in found and found.endswith(NOT_SUPPORTED)


def test_a_real_word_piece_tokenizer(tmp_path):
    model = models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]")
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="model.type is 'WordPiece'"):
        read_tokenizer_json(tmp_path)


@pytest.mark.assets
def test_a_real_word_level_tokenizer(assets):
    with pytest.raises(UserError, match="zh-poem-750k/tokenizer.json: model.type is 'WordLevel'"):
        read_tokenizer_json(assets / "models" / "zh-poem-750k")


# Refusing contradictions


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("gemma", {"added_tokens.0.id": 99}, "'<pad>' has ids 0 and 99"),
        ("qwen", {"added_tokens.0.id": 5}, "424 tokens share 423 ids"),
        ("qwen", {"model.vocab.!": -1}, "id -1 is negative, expected 0 or more"),
        ("qwen", {"model.merges.3": ["Ġ", "nowhere"]}, "merge 'Ġ' 'nowhere' needs 'nowhere', no token"),
        ("qwen", {"model.merges.3": ["!", "!"]}, "merge '!' '!' needs '!!', no token"),
        ("qwen", {"padding": {"pad_id": 999}}, "id 999 is named but belongs to no token"),
        (
            "gemma",
            {"post_processor.special_tokens.<bos>.ids": [500]},
            "id 500 is named but belongs to no token",
        ),
        ("t5", {"model.unk_id": 4000}, "id 4000 is named but belongs to no token"),
        ("gemma", {"model.unk_token": "[UNK]"}, "model.unk_token is '[UNK]', which is no token of the file"),
        (
            "qwen",
            {"post_processor": {"type": "BertProcessing", "sep": ["x", 888], "cls": ["y", 0]}},
            "id 888 is named",
        ),
        ("qwen", {"model.merges.0": "a b c"}, "damaged (ValueError: 'a b c' is not a merge"),
        ("qwen", {"model.vocab.a b": 600}, "damaged (KeyError: ' ')"),
        ("qwen", {"model.vocab": 7}, "damaged (TypeError"),
        ("qwen", {"added_tokens.0.id": "423"}, "has the id '423', expected a whole number"),
        ("qwen", {"model.vocab.!": 0.0}, "'!' has the id 0.0, expected a whole number"),
    ],
)
def test_contradictions(tiny, tmp_path, kind, changes, message):
    found = refuse(tiny, tmp_path, kind, changes)
    assert message in found
    assert "download" in found


@pytest.mark.parametrize("kind", ["qwen", "llama3"])
@pytest.mark.parametrize("behind", [1, 30])
def test_an_added_token_that_the_library_numbers_otherwise(tiny_copy, kind, behind):
    """What the file says of it is read by no program: tokenizers gives it the next free id."""
    folder = tiny_copy(kind)
    data = read_json(folder / "tokenizer.json")
    last = data["added_tokens"][-1]
    free = last["id"] + 1
    for number, content in ((free, "<|xa|>"), (free + 1 + behind, "<|xb|>")):
        data["added_tokens"].append({**last, "content": content, "id": number})
    write_json(folder / "tokenizer.json", data)
    assert load_encoder(folder).token_to_id("<|xb|>") == free + 1
    with pytest.raises(UserError, match=rf"xb\|>' has id {free + 1 + behind}, .* makes it {free + 1}"):
        read_tokenizer_json(folder)
    data["added_tokens"][-1]["id"] = free + 1  # what it says to do
    write_json(folder / "tokenizer.json", data)
    assert read_tokenizer_json(folder).added["<|xb|>"] == free + 1


def test_added_tokens_in_another_order_are_other_tokens_for_the_library(tiny_copy):
    folder = tiny_copy("qwen")
    data = read_json(folder / "tokenizer.json")
    data["added_tokens"].reverse()
    write_json(folder / "tokenizer.json", data)
    with pytest.raises(UserError, match="token ' thời gian' has id 423, .* makes it 420"):
        read_tokenizer_json(folder)


@given(
    st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1),
    st.lists(st.sampled_from("abcdwxyz"), unique=True, min_size=1),
    st.data(),
)
def test_library_ids_are_those_of_the_library(own, added, data):
    """Whatever ids the vocabulary and the added tokens are said to have."""
    ids = data.draw(st.lists(st.integers(0, 20), unique=True, min_size=len(own), max_size=len(own)))
    vocab = dict(zip(own, ids, strict=True))
    said = data.draw(st.lists(st.integers(0, 40), min_size=len(added), max_size=len(added)))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    entries = [
        {"id": at, "content": token, "special": data.draw(st.booleans()), **flags}
        for token, at in zip(added, said, strict=True)
    ]
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    library = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": entries, "model": model}))
    assert library_ids(vocab, entries) == [library.token_to_id(token) for token in added]


# Trimming


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_trimming_nothing_changes_nothing(tiny, kind):
    tokenizer = tiny(kind).tokenizer
    assert tokenizer.trimmed(list(tokenizer.tokens)) == tokenizer.data


@pytest.mark.parametrize(
    "name, token",
    [("added token '<|end|>'", "<|end|>"), ("post_processor.special_tokens.<|begin|>", "<|begin|>")],
)
def test_an_id_that_the_file_names_must_stay(tiny, name, token):
    tokenizer = tiny("llama3").tokenizer
    keep = [i for i in tokenizer.tokens if i != tokenizer.added[token]]
    with pytest.raises(UserError) as error:
        tokenizer.trimmed(keep)
    assert f"{tokenizer.path}: {name} names id {tokenizer.added[token]}, which is not kept" in str(
        error.value
    )


def test_trimmed_does_not_touch_the_source(tiny):
    tokenizer = tiny("llama3").tokenizer
    before = json.dumps(tokenizer.data)
    tokenizer.trimmed(tiny("llama3").plan([]).new_to_old)
    assert json.dumps(tokenizer.data) == before


def test_every_pointer_is_renumbered(tiny, tmp_path):
    """padding, BertProcessing, unk_id, TemplateProcessing in a Sequence: each names the same token after."""
    data = copy.deepcopy(tiny("t5").tokenizer.data)
    data["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    # <unk> goes to the place of another token, so that its id really moves
    rows = data["model"]["vocab"]
    rows[2], rows[50] = rows[50], rows[2]
    data["model"]["unk_id"] = 50
    next(token for token in data["added_tokens"] if token["content"] == "<unk>")["id"] = 50
    bert = {"type": "BertProcessing", "sep": ["</s>", 1], "cls": ["<unk>", 50]}
    data["post_processor"] = {"type": "Sequence", "processors": [data["post_processor"], bert]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    source = read_tokenizer_json(tmp_path)
    keep = sorted(source.referenced_ids() | {100, 110})
    new = source.trimmed(keep)
    (tmp_path / "tokenizer.json").write_text(json.dumps(new), encoding="utf-8")
    trimmed = read_tokenizer_json(tmp_path)
    assert trimmed.tokens == {at: source.tokens[old] for at, old in enumerate(keep)}
    unk = trimmed.vocab["<unk>"]
    assert new["model"]["unk_id"] == unk != 50
    assert new["post_processor"]["processors"][1] == {**bert, "cls": ["<unk>", unk]}
    assert new["padding"]["pad_id"] == trimmed.vocab["<pad>"]
    assert Tokenizer.from_file(str(trimmed.path)).encode("€").ids[-1] == trimmed.vocab["</s>"]


# Writing


def check_dump(data: dict) -> str:
    text = dump_tokenizer_json(data)
    again = json.loads(text)
    assert again == data
    assert list(again["model"]["vocab"]) == list(data["model"]["vocab"])  # equal dicts may differ in order
    return text


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_dump_and_load(tiny, kind):
    data = tiny(kind).tokenizer.data
    lines = check_dump(data).splitlines()
    assert len(lines) > len(data["model"]["vocab"]) + len(data["model"].get("merges", []))
    empty = {**data["model"], "vocab": type(data["model"]["vocab"])()}
    check_dump({**data, "model": empty | ({"merges": []} if "merges" in empty else {})})


@given(st.text(max_size=6), st.text(max_size=6))
def test_dump_any_token(left, right):
    """Quotes, control characters, U+2028 and the placeholders of the writer itself are only text."""
    vocab = {token: at for at, token in enumerate(dict.fromkeys([left, right, left + right]))}
    check_dump({"version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": [[left, right]]}})
    rows = [[token, -1.5] for token in vocab]
    check_dump({"version": "1.0", "model": {"type": "Unigram", "unk_id": 0, "vocab": rows}})


@pytest.mark.parametrize("token", ["\0vocab", "\0merges", '"', "\\", "\u2028", "\x7f", "\ud800"])
def test_dump_hard_tokens(token):
    added = [{"content": token, "id": 0}]
    check_dump(
        {"added_tokens": added, "model": {"vocab": {token: 0}, "merges": [[token, token], f"{token} b"]}}
    )


@pytest.mark.assets
@pytest.mark.parametrize("name", [name for name in REAL_NAMES if name != "gemma-2-it"])
def test_dump_real_files(real, name):
    check_dump(real(name).tokenizer.data)


def test_fingerprint_tells_ids_and_merges_apart() -> None:
    def fingerprint(vocab: dict[str, int], merges: list[tuple[str, str]]) -> str:
        return TokenizerJson(Path("tokenizer.json"), {}, BYTE_LEVEL_BPE, vocab, {}, merges).fingerprint()

    vocab, merges = {"a": 0, "b": 1, "ab": 2, "ba": 3}, [("a", "b"), ("b", "a")]
    same = fingerprint(dict(reversed(vocab.items())), merges)
    assert fingerprint(vocab, merges) == same
    for other in (
        fingerprint(vocab, merges[::-1]),
        fingerprint(vocab, merges[:1]),
        fingerprint({**vocab, "ba": 4}, merges),
        fingerprint({**vocab, "c": 4}, merges),
    ):
        assert other != same
