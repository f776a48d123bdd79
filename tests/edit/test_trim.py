"""vocabkit/edit/trim.py on every family: what comes out is the base with fewer rows, and nothing else."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import build
import pytest
import torch
from build import load, read_all
from tiny import edit_json
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    GenerationConfig,
)

from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.checkpoint.vocab_tensors import LAYOUTS, find_vocab_tensors
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.text.unicode import first_foreign
from vocabkit.tokenizer.bpe import text_for_people
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.verify.check import Check
from vocabkit.verify.edited import open_edited
from vocabkit.verify.files import check_files
from vocabkit.verify.rows import check_rows
from vocabkit.verify.tokenizer import check_tokenizer
from vocabkit.vocab.lists import FORMAT, VERSION
from vocabkit.vocab.plan import FOREIGN, PADDING, derive_bans

# Unicode names of what the trimmed models must not write begin with these words.
FOREIGN_NAMES = ("CJK", "CYRILLIC", "THAI", "HANGUL", "HIRAGANA", "KATAKANA", "ARABIC", "HEBREW", "GREEK")
CASES = [
    (family, tied, shards)
    for family in build.FAMILIES
    for tied, shards in ((True, 1), (False, 3), (True, 3), (False, 1))
    # Sharding does not depend on the architecture: all four ways for three, two ways for the others
    if family in ("qwen2", "t5", "opt") or tied == (shards == 1)
]


@dataclass
class Pair:
    """A source folder, the folder trimmed out of it, and what the source's files were before."""

    source: Path
    out: Path
    before: dict[str, str]

    @cached_property
    def edit(self) -> dict[str, Any]:
        return read_json(self.out / "vocab_edit.json")

    @cached_property
    def old_to_new(self) -> dict[int, int]:
        return {old: new for new, old in enumerate(self.edit["new_to_old"])}

    @cached_property
    def models(self) -> tuple[Any, Any]:
        return load(self.source), load(self.out)

    @cached_property
    def covered(self) -> tuple[list[int], list[int]]:
        """Ids of a covered text by the source's tokenizer and by that of the output."""
        text = " ".join(build.COVERED)[:200]
        old, new = (
            AutoTokenizer.from_pretrained(f)(text, add_special_tokens=True).input_ids
            for f in (self.source, self.out)
        )
        return old, new


@pytest.fixture(scope="module")
def make_pair(checkpoint, trimmed) -> Callable[..., Pair]:
    """As checkpoint, with the folder trimmed out of it."""

    def make(*family: str, **how: Any) -> Pair:
        source = checkpoint(*family, **how)
        before = build.fingerprints(source)
        return Pair(source, trimmed(*family, **how), before)

    return make


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}-{'tied' if c[1] else 'untied'}-{c[2]}")
def pair(request, make_pair) -> Pair:
    family, tied, shards = request.param
    return make_pair(family, tied=tied, shards=shards)


@pytest.fixture(scope="module")
def qwen2(make_pair) -> Pair:
    return make_pair()


@pytest.fixture
def source(qwen2, tmp_path) -> Path:
    return Path(shutil.copytree(qwen2.source, tmp_path / "source"))


def test_the_families_take_both_ways_to_their_tensors():
    assert {"qwen2", "t5", "gpt2"} <= LAYOUTS.keys() & build.FAMILIES.keys()
    assert {"opt", "gpt_neox"} <= build.FAMILIES.keys() - LAYOUTS.keys(), "these ask the model itself"


# Every family


def test_new_model_is_the_old_one_over_the_kept_columns(pair):
    """Golden test: logits of covered text, from the output folder alone."""
    old_model, new_model = pair.models
    old_ids, new_ids = pair.covered
    assert new_ids == [pair.old_to_new[token_id] for token_id in old_ids], "covered text encodes differently"
    ends = old_model.get_input_embeddings().weight, old_model.get_output_embeddings().weight
    assert torch.equal(*ends) == read_json(pair.source / "config.json")["tie_word_embeddings"]
    n_tokens, vocab_size = pair.edit["n_tokens"], pair.edit["vocab_size"]
    assert new_model.config.vocab_size == vocab_size < old_model.config.vocab_size
    assert new_model.get_input_embeddings().weight.shape[0] == vocab_size
    with torch.no_grad():
        old, new = (
            model(input_ids=ids, decoder_input_ids=ids).logits
            if model.config.is_encoder_decoder
            else model(input_ids=ids).logits
            for model, ids in ((old_model, torch.tensor([old_ids])), (new_model, torch.tensor([new_ids])))
        )
    assert new.shape == (1, len(new_ids), vocab_size)
    assert old.std() > 0.01, "a model whose logits are all alike proves nothing"
    torch.testing.assert_close(new[..., :n_tokens], old[..., pair.edit["new_to_old"]], atol=1e-5, rtol=0)


def test_rows_are_the_old_rows_and_then_zeros(pair):
    old, new = (read_checkpoint(folder) for folder in (pair.source, pair.out))
    config = read_json(pair.source / "config.json")
    vocabulary = find_vocab_tensors(old).names
    biases = {"lm_head.bias"} & old.tensors.keys()  # Phi's head has one
    assert len(vocabulary - biases) == (1 if config["tie_word_embeddings"] else 2)
    assert biases <= vocabulary
    assert old.tensors.keys() == new.tensors.keys()
    assert [f.name for f in old.files] == [f.name for f in new.files]
    old_state, new_state = read_all(old), read_all(new)
    for name, tensor in old_state.items():
        if name in vocabulary:
            wanted = torch.zeros(pair.edit["vocab_size"], *tensor.shape[1:], dtype=tensor.dtype)
            wanted[: pair.edit["n_tokens"]] = tensor[pair.edit["new_to_old"]]
            tensor = wanted
        assert torch.equal(new_state[name], tensor), name


def test_source_is_untouched(pair):
    assert build.fingerprints(pair.source) == pair.before
    assert sorted(path.name for path in pair.source.parent.iterdir()) == ["base", "base__trimm_vocab"]


def test_generate_never_chooses_what_is_suppressed(pair):
    """Sampled at a high temperature; the same model without the list does choose such tokens."""
    config = GenerationConfig.from_pretrained(pair.out)
    assert config.eos_token_id == pair.old_to_new[read_json(pair.source / "config.json")["eos_token_id"]]
    suppressed = sorted(i for ids in pair.edit["suppressed"].values() for i in ids)
    assert config.suppress_tokens == suppressed
    assert set(range(pair.edit["n_tokens"], pair.edit["vocab_size"])) <= set(suppressed)
    model = pair.models[1]
    prompt = torch.tensor([pair.covered[1][:8]] * 32)

    def sample(temperature: float) -> set[int]:
        torch.manual_seed(0)
        new_ids = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=temperature, top_k=0,
            max_new_tokens=6,
        )  # fmt: skip
        return set(new_ids[:, 1 if model.config.is_encoder_decoder else prompt.shape[1] :].flatten().tolist())

    assert not (sample(1.5) | sample(1000.0)) & set(suppressed)
    model.generation_config.suppress_tokens = None
    assert sample(1000.0) & set(suppressed), "the list was not what prevented it"
    model.generation_config.suppress_tokens = suppressed


# What is written beside the weights


def test_vocab_edit_says_where_everything_came_from(qwen2):
    edit = qwen2.edit
    tokenizer = read_tokenizer_json(qwen2.source)
    assert (edit["format"], edit["version"], edit["task"]) == ("vocab-edit", 1, "trimm_vocab")
    assert edit["base_model"] == qwen2.source.name, "no folder of the machine"
    assert edit["base_tokenizer_sha256"] == qwen2.before["tokenizer.json"]
    assert edit["base_vocab_size"] == read_json(qwen2.source / "config.json")["vocab_size"]
    assert edit["base_n_tokens"] == len(tokenizer.tokens)
    assert edit["n_tokens"] == len(edit["new_to_old"]) == len(read_tokenizer_json(qwen2.out).tokens)
    assert edit["new_to_old"] == sorted(set(edit["new_to_old"]))
    assert edit["vocab_size"] % 64 == 0 and 0 <= edit["vocab_size"] - edit["n_tokens"] < 64
    assert edit["pad_rows"] == [edit["n_tokens"], edit["vocab_size"] - 1]
    assert edit["keep"].keys() == {
        "how", "source", "sha256", "requested", "always_kept", "added_by_closure"
    }  # fmt: skip
    assert edit["keep"]["how"] == "rules" and "Latin" in edit["keep"]["source"]
    parts = ("requested", "always_kept", "added_by_closure")
    assert sum(edit["keep"][part] for part in parts) == edit["n_tokens"]
    assert edit["suppressed"].keys() == {PADDING, FOREIGN}
    assert edit["made_by"] == "vocabkit"
    for new, old in enumerate(edit["new_to_old"]):
        assert read_tokenizer_json(qwen2.out).tokens[new] == tokenizer.tokens[old], (new, old)


def test_no_foreign_character_can_be_spelled(qwen2):
    """Every character of a removed script needs a suppressed token first; every covered text needs none."""
    encoder = Tokenizer.from_file(str(qwen2.out / "tokenizer.json"))
    suppressed = set(read_json(qwen2.out / "generation_config.json")["suppress_tokens"])
    for text in build.FOREIGN:
        for char in text:
            if unicodedata.name(char).startswith(FOREIGN_NAMES):
                assert suppressed & set(encoder.encode(char).ids), char
    for text in build.COVERED:
        assert not suppressed & set(encoder.encode(text).ids), text


def test_generated_text_has_no_foreign_character(qwen2):
    model, tokenizer = qwen2.models[1], AutoTokenizer.from_pretrained(qwen2.out)
    prompt = tokenizer(["我们的名字"] * 32, return_tensors="pt")
    torch.manual_seed(0)
    ids = model.generate(**prompt, do_sample=True, temperature=2.0, top_k=0, max_new_tokens=48)
    text = tokenizer.decode(ids[:, prompt.input_ids.shape[1] :].flatten())
    # Trained on few texts, this tokenizer spells signs and emoji with bytes that rare characters share.
    spelled = derive_bans(read_tokenizer_json(qwen2.out)).spelled
    assert all(first_foreign(char) is None or char in spelled[first_foreign(char)] for char in text)
    assert len(text) > 100 and not set(text) & set(map(chr, range(0x4E00, 0xA000)))


def test_settings_name_the_new_ids(qwen2):
    tokenizer = read_tokenizer_json(qwen2.out)
    for name in ("config.json", "generation_config.json"):
        settings = read_json(qwen2.out / name)
        assert tokenizer.tokens[settings["eos_token_id"]] == "<|im_end|>"
        assert tokenizer.tokens[settings["pad_token_id"]] == "<|endoftext|>"


def test_missing_generation_config_is_made_from_config(source, tmp_path):
    (source / "generation_config.json").unlink()
    trim_vocab(source, tmp_path / "out")
    made = read_json(tmp_path / "out" / "generation_config.json")
    config = read_json(tmp_path / "out" / "config.json")
    assert made["eos_token_id"] == config["eos_token_id"] and made["pad_token_id"] == config["pad_token_id"]
    assert made["suppress_tokens"]
    model = load(tmp_path / "out")
    torch.manual_seed(0)
    prompt = torch.tensor([[5, 6, 7]] * 16)
    ids = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=3.0, top_k=0,
        max_new_tokens=100,
    )  # fmt: skip
    stopped = 0
    for row in ids[:, 3:].tolist():
        if config["eos_token_id"] in row:
            stopped += 1
            assert set(row[row.index(config["eos_token_id"]) + 1 :]) <= {config["pad_token_id"]}
    assert stopped, "no answer ended: nothing was tested"


def test_flag_that_makes_generate_forget_the_list_is_dropped(source, tmp_path):
    edit_json(source / "generation_config.json", _from_model_config=True)
    trim_vocab(source, tmp_path / "out")
    assert "_from_model_config" not in read_json(tmp_path / "out" / "generation_config.json")


def test_own_suppressed_ids_of_the_base_stay_suppressed(source, tmp_path):
    exclamation = read_tokenizer_json(source).vocab["!"]
    edit_json(source / "generation_config.json", suppress_tokens=[exclamation])
    trim_vocab(source, tmp_path / "out")
    new = read_tokenizer_json(tmp_path / "out").vocab["!"]
    suppressed = read_json(tmp_path / "out" / "generation_config.json")["suppress_tokens"]
    assert new in suppressed and len(suppressed) > 1


# Options


@pytest.mark.parametrize(("multiple", "rows"), [(1, 388), (64, 448), (128, 512)])
def test_pad_multiple(source, tmp_path, multiple, rows):
    trim_vocab(source, tmp_path / "out", pad_multiple=multiple)
    edit = read_json(tmp_path / "out" / "vocab_edit.json")
    assert (edit["n_tokens"], edit["vocab_size"]) == (388, rows)
    assert edit["pad_rows"] == ([388, rows - 1] if rows > 388 else None)
    assert (PADDING in edit["suppressed"]) == (rows > 388)
    assert load(tmp_path / "out").config.vocab_size == rows


def test_allow_all_bytes_suppresses_padding_only(source, tmp_path):
    trim_vocab(source, tmp_path / "out", allow_all_bytes=True)
    edit = read_json(tmp_path / "out" / "vocab_edit.json")
    assert edit["suppressed"].keys() == {PADDING}
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "could still be spelled by bytes" in card and "vẫn có thể được ghép theo từng byte" in card


def test_allow_all_bytes_without_padding_suppresses_nothing(source, tmp_path):
    trim_vocab(source, tmp_path / "out", allow_all_bytes=True, pad_multiple=1)
    assert read_json(tmp_path / "out" / "vocab_edit.json")["suppressed"] == {}
    assert not GenerationConfig.from_pretrained(tmp_path / "out").suppress_tokens


def test_dry_run_writes_nothing(source, tmp_path, capsys):
    before = build.fingerprints(tmp_path)
    trim_vocab(source, tmp_path / "out", dry_run=True)
    assert build.fingerprints(tmp_path) == before and sorted(tmp_path.iterdir()) == [source]
    printed = capsys.readouterr().out
    assert "91.5% kept" in printed and "bytes" in printed and "saved" in printed


def test_plan_says_what_the_bytes_will_be(source, tmp_path, capsys):
    trim_vocab(source, tmp_path / "out")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bytes ")]
    before, after = (read_checkpoint(folder).size for folder in (source, tmp_path / "out"))
    assert f"{before:,}" in line and f"{after:,}" in line and f"{1 - after / before:.1%}" in line


# Kept lists


def id_of(folder: Path, text: str) -> int:
    (found,) = (i for i, data in read_tokenizer_json(folder).token_bytes.items() if data == text.encode())
    return found


def list_of(folder: Path, kind: str, ids: list[int]) -> Path:
    """Write a kept list of one of the four kinds with these ids."""
    tokenizer = read_tokenizer_json(folder)
    target = folder.parent / f"list.{kind}"
    rows = [[text_for_people(tokenizer.token_bytes[i]), i, 7] for i in ids]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if kind == "folder":
        target.mkdir()
        (target / "tokens_kept__english.jsonl").write_text(lines[: lines.index("\n") + 1], encoding="utf-8")
        (target / "tokens_kept__others.jsonl").write_text(lines[lines.index("\n") + 1 :], encoding="utf-8")
        (target / "tokens_removed__others.jsonl").write_text("never read", encoding="utf-8")
        fingerprint = tokenizer.fingerprint()
        summary = {"format": FORMAT, "version": VERSION, "fingerprint": fingerprint}
        write_json(target / "summary.json", summary)
    elif kind == "json":
        write_json(target, ids)
    else:
        text = lines if kind == "jsonl" else "# mine\n\n" + "".join(f"{i}  # {i}\n" for i in ids)
        target.write_text(text, encoding="utf-8")
    return target


def frame_ids(folder: Path) -> list[int]:
    """What a chat of one message is as ids, as transformers makes them."""
    return AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True, return_dict=False
    )


@pytest.mark.parametrize("kind", ["folder", "jsonl", "txt", "json"])
def test_each_kind_of_list_keeps_the_same_tokens(source, tmp_path, kind, capsys):
    words = (" jum", " Việ", "天气")
    wanted = [id_of(source, word) for word in words]
    path = list_of(source, kind, wanted)
    trim_vocab(source, tmp_path / "out", keep_paths=[path])
    edit = read_json(tmp_path / "out" / "vocab_edit.json")
    assert edit["keep"]["how"] == "given" and edit["keep"]["source"] == path.name
    assert len(edit["keep"]["sha256"]) == 64
    assert edit["keep"]["requested"] == 3
    around = set(frame_ids(source)) - set(range(256))
    assert len(around) > 4, "the template writes no tokens but the added ones"
    always = len(around | set(read_tokenizer_json(source).added.values())) + 256
    assert edit["keep"]["always_kept"] == always, "the bytes, the added tokens, the chat template's"
    assert edit["keep"]["added_by_closure"] == edit["n_tokens"] - always - 3 > 0
    old_to_new = {old: new for new, old in enumerate(edit["new_to_old"])}
    assert frame_ids(tmp_path / "out") == [old_to_new[old] for old in frame_ids(source)]

    for word, old in zip(words, wanted, strict=True):
        ids = AutoTokenizer.from_pretrained(tmp_path / "out")(word).input_ids
        assert [edit["new_to_old"][new] for new in ids] == [old]
    assert f"given: {path.name}\n" in capsys.readouterr().out


def test_lists_add_up(source, tmp_path):
    words = (" jum", "天气")
    first = list_of(source, "txt", [id_of(source, words[0])])
    second = list_of(source, "json", [id_of(source, words[1])])
    trim_vocab(source, tmp_path / "out", keep_paths=[first, second])
    assert read_json(tmp_path / "out" / "vocab_edit.json")["keep"]["requested"] == 2
    assert all(id_of(tmp_path / "out", word) for word in words)


def test_a_list_with_foreign_tokens_lets_their_script_be_written(source, tmp_path, capsys):
    trim_vocab(source, tmp_path / "out", keep_paths=[list_of(source, "json", [id_of(source, "天气")])])
    assert "the list keeps tokens of Han (1)" in capsys.readouterr().out
    encoder = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    suppressed = set(read_json(tmp_path / "out" / "generation_config.json")["suppress_tokens"])
    assert not suppressed & set(encoder.encode("天气").ids)
    assert suppressed & set(encoder.encode("Привет").ids)


def test_trimming_a_trimmed_folder_again(qwen2, tmp_path):
    write_json(tmp_path / "list.json", [id_of(qwen2.out, word) for word in (" jum", " Việ")])
    before = build.fingerprints(qwen2.out)
    trim_vocab(qwen2.out, tmp_path / "twice", keep_paths=[tmp_path / "list.json"])
    assert build.fingerprints(qwen2.out) == before
    edit = read_json(tmp_path / "twice" / "vocab_edit.json")
    assert edit["base_model"] == qwen2.out.name and edit["vocab_size"] < qwen2.edit["vocab_size"]
    old = load(qwen2.source).get_input_embeddings().weight
    composed = [qwen2.edit["new_to_old"][middle] for middle in edit["new_to_old"]]
    new = load(tmp_path / "twice").get_input_embeddings().weight
    assert torch.equal(new[: edit["n_tokens"]], old[composed])
    suppressed = read_json(tmp_path / "twice" / "generation_config.json")["suppress_tokens"]
    assert set(range(edit["n_tokens"], edit["vocab_size"])) <= set(suppressed)
    assert max(suppressed) < edit["vocab_size"]


def test_half_precision_rows_are_copied_as_they_are(make_pair):
    for dtype in ("bfloat16", "float16"):
        pair = make_pair(dtype=dtype, tied=False)
        old, new = (read_checkpoint(folder) for folder in (pair.source, pair.out))
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert new.tensors[name].dtype == {"bfloat16": "BF16", "float16": "F16"}[dtype]
            assert torch.equal(
                read_all(new)[name][: pair.edit["n_tokens"]], read_all(old)[name][pair.edit["new_to_old"]]
            )


# Real models


def clean(base: Path, out: Path, texts: list[str]) -> list[Check]:
    """Run steps 1 to 3 of the ladder and assert that none found anything."""
    edited = open_edited(base, out)
    checks = [check_files(edited), check_tokenizer(edited, texts), check_rows(edited)]
    assert [finding for check in checks for finding in check.findings] == []
    assert checks[1].numbers["covered"] > 0
    return checks


@pytest.mark.assets
def test_real_llama_with_sentencepiece_style_tokenizer(assets, tmp_path):
    base = assets / "models" / "stories260K"
    before = build.fingerprints(base)
    trim_vocab(base, tmp_path / "out")
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside."
    clean(base, tmp_path / "out", [story])
    assert build.fingerprints(base) == before
    answers = [greedy(folder, story, 40) for folder in (base, tmp_path / "out")]
    assert answers[0] == answers[1] and len(answers[0]) > 40


def greedy(folder: Path, text: str, count: int) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(text, return_tensors="pt").input_ids
    ids = load(folder).generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=count
    )
    return tokenizer.decode(ids[0, prompt.shape[1] :])


def as_unigram(source: Path, target: Path) -> None:
    """Write a WordLevel tokenizer of single characters as Unigram: the same ids for every text.

    Every piece is one character, so a text has one path only and the scores do not matter; unknown
    characters become <unk> one by one because they are single pre-tokens.
    """
    data = read_json(source)
    vocab = sorted(data["model"]["vocab"].items(), key=lambda item: item[1])
    data["model"] = {
        "type": "Unigram", "unk_id": 0, "vocab": [[token, -1.0] for token, _ in vocab], "byte_fallback": False
    }  # fmt: skip
    write_json(target, data)


@pytest.mark.assets
def test_real_chinese_model_with_half_of_its_characters(assets, tmp_path):
    original = assets / "models" / "zh-poem-750k"
    with pytest.raises(UserError, match="model.type is 'WordLevel', expected 'BPE' or 'Unigram'"):
        trim_vocab(original, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

    base = tmp_path / "base"
    shutil.copytree(original, base)
    for path in (base, *base.iterdir()):
        path.chmod(0o755)
    as_unigram(original / "tokenizer.json", base / "tokenizer.json")
    word_level, unigram = (Tokenizer.from_file(str(f / "tokenizer.json")) for f in (original, base))
    poems = (assets / "corpora" / "zh" / "d2l_zh.txt").read_text(encoding="utf-8").splitlines()[:400]
    poems += ["床前明月光，疑是地上霜。\n举头望明月，低头思故乡。", "白日依山尽，黄河入海流。"]
    for poem in poems:
        assert unigram.encode(poem).ids == word_level.encode(poem).ids, poem

    half = tmp_path / "half.txt"
    half.write_text("".join(f"{i}\n" for i in range(0, 2048, 2)), encoding="utf-8")
    trim_vocab(base, tmp_path / "out", keep_paths=[half], pad_multiple=1)
    edit = read_json(tmp_path / "out" / "vocab_edit.json")
    assert 1024 <= edit["n_tokens"] <= 1030
    kept = [unigram.id_to_token(old) for old in edit["new_to_old"] if old > 2]
    covered = "".join(char for char in kept if len(char) == 1)
    clean(base, tmp_path / "out", [covered[at : at + 40] for at in range(0, len(covered), 40)])
    pair = Pair(base, tmp_path / "out", {})
    old_ids = unigram.encode(covered[:100]).ids
    new_ids = [pair.old_to_new[i] for i in old_ids]
    with torch.no_grad():
        old, new = (m(torch.tensor([i])).logits for m, i in zip(pair.models, (old_ids, new_ids), strict=True))
    torch.testing.assert_close(new, old[..., edit["new_to_old"]], atol=1e-4, rtol=0)
