"""vocabkit/edit/files.py: every file of a folder but its weights, rewritten, copied or left out."""

import json

import pytest
from tiny import SENTENCES, TINY_KINDS, edit_json, open_folder, trim_files
from tokenizers import AddedToken, Tokenizer

from vocabkit.errors import UserError
from vocabkit.files import write_json
from vocabkit.tokenizer.settings import read_spm_models, required_ids, settings_files
from vocabkit.vocab.plan import suppressed_ids


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def trim(path, target, **changes):
    """Trim a folder to what two sentences use."""
    base = open_folder(path)
    used = {i for text in SENTENCES[:2] for i in base.encode(text)}
    return trim_files(base, target, base.plan(used, **changes))


# What is required


def test_settings_files_are_those_that_may_name_ids(tiny_copy):
    path = tiny_copy("qwen")
    for name in (
        "added_tokens.json",
        "special_tokens_map.json",
        "preprocessor_config.json",
        "vocab_edit.json",
    ):
        write_json(path / name, {})
    write_json(path / "model.safetensors.index.json", {})
    assert [file.name for file in settings_files(path)] == [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ]


def test_required_ids_come_from_every_settings_file(tiny, tiny_copy):
    path = tiny_copy("qwen")
    before = open_folder(path).required
    edit_json(path / "config.json", text_config={"bos_token_id": 70})
    edit_json(path / "generation_config.json", bad_words_ids=[[71, 72]])
    edit_json(path / "preprocessor_config.json", image_token_id=73)
    assert open_folder(path).required == before | {70, 73}  # a ban is no reason to keep a token


def test_required_ids_include_the_pieces_that_must_stay(tiny):
    t5 = tiny("t5")
    scores = {i: p.score for i, p in enumerate(t5.spm_models["spiece.model"].pieces) if p.type == 1}
    assert {min(scores, key=scores.get), max(scores, key=scores.get)} <= t5.required
    assert set(tiny("gemma").tokenizer.byte_ids()) <= tiny("gemma").required


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("config.json", "eos_token_id", 999),
        ("config.json", "text_config", {"pad_token_id": 999}),
        ("generation_config.json", "eos_token_id", [3, 999]),
        ("tokenizer_config.json", "added_tokens_decoder", {"999": {"content": "<x>"}}),
        ("generation_config.json", "begin_suppress_tokens", [999]),
    ],
)
def test_an_id_that_no_token_has_is_an_error(tiny_copy, name, field, value):
    path = tiny_copy("qwen")
    edit_json(path / name, **{field: value})
    with pytest.raises(UserError) as error:
        _ = open_folder(path).required
    message = str(error.value)
    assert str(path / name) in message and field in message
    assert "is 999, but none of the 424 tokens" in message


def test_a_settings_file_that_is_not_json_is_an_error(tiny_copy):
    path = tiny_copy("qwen")
    (path / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="generation_config.json:1 is not JSON"):
        _ = open_folder(path).required


def test_read_spm_models_finds_all_names(tiny, tmp_path):
    content = (tiny("t5").path / "spiece.model").read_bytes()
    for name in ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"):
        (tmp_path / name).write_bytes(content)
    assert set(read_spm_models(tmp_path)) == {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}
    assert required_ids(tmp_path, tiny("t5").tokenizer, {}) == set()


# What is written


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_file_agrees_after_trimming(tiny, tmp_path, kind):
    trimmed = trim(tiny(kind).path, tmp_path / "out")
    base, out, plan = trimmed.base, trimmed.out, trimmed.plan
    assert plan.n_tokens < len(base.tokenizer.tokens)
    assert {p.name for p in out.path.iterdir()} == {p.name for p in base.path.iterdir()}
    assert out.tokenizer.tokens == {at: base.tokenizer.tokens[old] for at, old in enumerate(plan.new_to_old)}
    if kind == "qwen":
        assert read(out.path / "vocab.json") == out.tokenizer.vocab
        first, *lines, last = (out.path / "merges.txt").read_text(encoding="utf-8").split("\n")
        assert first == "#version: 0.2" and last == ""
        assert [tuple(line.split(" ")) for line in lines] == out.tokenizer.merges
    # Merges stay in the form in which they were written
    for before, after in zip(
        *(f.tokenizer.data["model"].get("merges", []) for f in (base, out)), strict=False
    ):
        assert type(before) is type(after)
    config = read(out.path / "config.json")
    assert config["vocab_size"] == plan.vocab_size
    for name in ("config.json", "generation_config.json"):
        old, new = read(base.path / name), read(out.path / name)
        for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
            assert (field in old) == (field in new)
            if field in old:
                assert out.tokenizer.tokens[new[field]] == base.tokenizer.tokens[old[field]]
    assert read(out.path / "generation_config.json")["suppress_tokens"] == suppressed_ids(plan.suppressed)
    decoder = read(out.path / "tokenizer_config.json")["added_tokens_decoder"]
    assert {entry["content"]: int(key) for key, entry in decoder.items()} == out.tokenizer.added


def test_trimming_to_everything_changes_no_id(tiny, tmp_path):
    base = tiny("qwen")
    trimmed = trim_files(base, tmp_path / "out", base.plan(base.tokenizer.tokens, allow_all_bytes=True))
    assert trimmed.plan.new_to_old == list(base.tokenizer.tokens)
    for name in ("merges.txt", "tokenizer_config.json"):
        assert (trimmed.out.path / name).read_bytes() == (base.path / name).read_bytes()
    assert trimmed.out.tokenizer.data == base.tokenizer.data
    assert read(trimmed.out.path / "vocab.json") == read(base.path / "vocab.json")


def test_files_without_ids_are_copied_byte_for_byte(tiny_copy, tmp_path):
    path = tiny_copy("qwen")
    files = {
        "LICENSE": b"text\r\n", "chat_template.jinja": b"{{ messages }}",
        "special_tokens_map.json": b'{"a":  1 }', "image.png": b"\x89PNG", "README.vi.md": b"xin",
    }  # fmt: skip
    for name, content in files.items():
        (path / name).write_bytes(content)
    out = trim(path, tmp_path / "out").out.path
    assert {name: (out / name).read_bytes() for name in files} == files


def test_what_is_left_out_is_named(tiny_copy, tmp_path):
    from vocabkit.edit.files import write_files

    path = tiny_copy("qwen")
    for name in ("pytorch_model.bin", "model.gguf", "modeling.py", "qwen.tiktoken", "tekken.json",
                 "README.md", ".gitattributes", "vocab_edit.json", "verify_report.json", "model.safetensors",
                 "pytorch_model.bin.index.json", "model.safetensors.index.json"):  # fmt: skip
        (path / name).write_text("{}", encoding="utf-8")
    (path / "onnx").mkdir()
    base = open_folder(path)
    target = tmp_path / "out"
    target.mkdir()
    left_out = write_files(
        path, target, tokenizer=base.tokenizer, plan=base.plan([]), spm_models={}, rows=base.rows
    )
    assert left_out == [
        "model.gguf", "modeling.py", "onnx/", "pytorch_model.bin", "pytorch_model.bin.index.json",
        "qwen.tiktoken",
    ]  # fmt: skip
    assert sorted(p.name for p in target.iterdir()) == [
        "config.json", "generation_config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
        "vocab.json",
    ]  # fmt: skip


def test_added_tokens_json_is_renumbered(tiny_copy, tmp_path):
    path = tiny_copy("qwen")
    added = open_folder(path).tokenizer.added
    write_json(path / "added_tokens.json", added)
    out = trim(path, tmp_path / "out").out
    assert read(out.path / "added_tokens.json") == out.tokenizer.added != added


def test_generation_config_forgets_that_it_came_from_the_model(tiny_copy, tmp_path):
    """With _from_model_config, generate() would make its settings anew and lose suppress_tokens."""
    path = tiny_copy("qwen")
    edit_json(path / "generation_config.json", _from_model_config=True, temperature=0.5)
    settings = read(trim(path, tmp_path / "out").out.path / "generation_config.json")
    assert "_from_model_config" not in settings
    assert settings["temperature"] == 0.5 and settings["suppress_tokens"]


def test_generation_config_is_made_from_config_where_there_is_none(tiny_copy, tmp_path):
    path = tiny_copy("qwen")
    (path / "generation_config.json").unlink()
    edit_json(path / "config.json", eos_token_id=[421, 420])
    trimmed = trim(path, tmp_path / "out")
    settings = read(trimmed.out.path / "generation_config.json")
    assert settings == {
        "eos_token_id": trimmed.map([421, 420]),
        "pad_token_id": trimmed.map([420])[0],
        "suppress_tokens": suppressed_ids(trimmed.plan.suppressed),
    }


def test_own_suppressed_tokens_stay(tiny_copy, tmp_path):
    path = tiny_copy("qwen")
    edit_json(path / "generation_config.json", suppress_tokens=[80, 81])
    trimmed = trim(path, tmp_path / "out")
    suppressed = read(trimmed.out.path / "generation_config.json")["suppress_tokens"]
    assert suppressed == sorted({*trimmed.map([80, 81]), *suppressed_ids(trimmed.plan.suppressed)})


def test_nothing_to_suppress_writes_no_list(tiny, tmp_path):
    base = tiny("qwen")
    out = trim_files(base, tmp_path / "out", base.plan([], pad_multiple=1, allow_all_bytes=True)).out
    assert "suppress_tokens" not in read(out.path / "generation_config.json")


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_trimmed_folder_can_be_trimmed_again(tiny, tmp_path, kind):
    """Its generation_config.json suppresses padding rows, which are no tokens."""
    once = trim(tiny(kind).path, tmp_path / "once")
    twice = trim_files(once.out, tmp_path / "twice", once.out.plan(once.out.encode(SENTENCES[0])))
    assert twice.plan.n_tokens < once.plan.n_tokens
    assert twice.out.encode(SENTENCES[0]) == twice.map(once.out.encode(SENTENCES[0]))
    suppressed = set(read(twice.out.path / "generation_config.json")["suppress_tokens"])
    assert suppressed >= set(range(twice.plan.n_tokens, twice.plan.vocab_size))
    assert max(suppressed) < twice.plan.vocab_size


# Contradictions


def test_vocab_json_of_another_tokenizer(tiny_copy, tmp_path):
    path = tiny_copy("qwen")
    edit_json(path / "vocab.json", a=7, nowhere=8)
    with pytest.raises(
        UserError, match="vocab.json: 'a' has id 7, in tokenizer.json 64; the two files belong"
    ):
        trim(path, tmp_path / "out")


def test_added_tokens_json_of_another_tokenizer(tiny_copy, tmp_path):
    path = tiny_copy("qwen")
    write_json(path / "added_tokens.json", {"<|nobody|>": 420})
    with pytest.raises(UserError, match="added_tokens.json: '<|nobody|>' has id 420, in tokenizer.json None"):
        trim(path, tmp_path / "out")


def test_merges_txt_of_another_tokenizer(tiny_copy, tmp_path):
    path = tiny_copy("qwen")
    text = (path / "merges.txt").read_text(encoding="utf-8")
    (path / "merges.txt").write_text(text + "a b\n", encoding="utf-8")
    with pytest.raises(
        UserError, match="merges.txt has 165 merges that differ from the 164 of tokenizer.json"
    ):
        trim(path, tmp_path / "one")
    (path / "merges.txt").write_text(text + "a b c\n", encoding="utf-8")
    with pytest.raises(UserError, match="merges.txt has 165 merges that differ"):
        trim(path, tmp_path / "two")


def test_merges_txt_with_windows_line_ends_or_without_a_version(tiny_copy, tmp_path):
    path = tiny_copy("qwen")
    text = (path / "merges.txt").read_text(encoding="utf-8")
    (path / "merges.txt").write_bytes(text.removeprefix("#version: 0.2\n").replace("\n", "\r\n").encode())
    out = trim(path, tmp_path / "out").out
    lines = (out.path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert [tuple(line.split(" ")) for line in lines] == out.tokenizer.merges


def test_a_token_that_was_added_later_can_be_generated(tiny_copy, tmp_path):
    """It got the first padding row, which the folder's suppress_tokens bans: no task carries that ban on."""
    once = trim(tiny_copy("qwen"), tmp_path / "once").out.path
    encoder = Tokenizer.from_file(str(once / "tokenizer.json"))
    encoder.add_tokens([AddedToken("<nước>", normalized=False)])
    encoder.save(str(once / "tokenizer.json"))
    new = encoder.token_to_id("<nước>")
    assert new in read(once / "generation_config.json")["suppress_tokens"]
    (once / "vocab_edit.json").unlink(missing_ok=True)  # as save_pretrained leaves it
    twice = trim(once, tmp_path / "twice")
    assert twice.map([new])[0] not in read(twice.out.path / "generation_config.json")["suppress_tokens"]


def test_bans_of_tokens_that_go_keep_nothing_and_are_dropped(tiny_copy, tmp_path):
    """A list of Han tokens that the base may not write is no reason to keep them."""
    path = tiny_copy("qwen")
    plain = trim(path, tmp_path / "plain").plan
    gone = sorted(set(open_folder(path).tokenizer.tokens) - set(plain.new_to_old))[:8]
    edit_json(
        path / "generation_config.json",
        suppress_tokens=[80, *gone], begin_suppress_tokens=gone, bad_words_ids=[[80, gone[0]], [80, 81]],
    )  # fmt: skip
    trimmed = trim(path, tmp_path / "out")
    settings = read(trimmed.out.path / "generation_config.json")
    assert trimmed.plan.new_to_old == plain.new_to_old
    assert trimmed.map([80])[0] in settings["suppress_tokens"]
    assert "begin_suppress_tokens" not in settings
    assert settings["bad_words_ids"] == [trimmed.map([80, 81])]
