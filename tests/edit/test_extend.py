"""vocabkit/edit/extend.py on every family: old rows and old texts as they were, new words in one token."""

import json
import shutil
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import build
import numpy as np
import pytest
import torch
from build import load, stored
from extending import TEXTS, WORDS, write_list
from tiny import Folder, edit_json
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import build_vi_words
import model_edit
from vocabkit.checkpoint.record import EditRecord
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.checkpoint.vocab_tensors import find_vocab_tensors
from vocabkit.edit import extend
from vocabkit.edit.extend import extend_vocab
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.rows.make import word_tokens
from vocabkit.tokenizer import spm
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.settings import read_spm_models
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.verify.ladder import verify_edit
from vocabkit.vocab import word_list
from vocabkit.vocab.new_tokens import check_extended, make_tokens
from vocabkit.vocab.plan import FOREIGN, PADDING, extend_plan

CONTENTS = [" " + word.replace("▁", " ") for word in WORDS]
# family, tied, shards, number type, init
CASES = [
    ("qwen2", True, 1, "float32", "weighted"),
    ("qwen2", False, 3, "bfloat16", "first_last"),
    ("llama", False, 1, "float32", "weighted"),
    ("llama", True, 3, "bfloat16", "mean"),
    ("gemma2", True, 3, "float32", "mean"),
    ("gemma2", True, 1, "float16", "first_last"),
    ("gpt2", True, 1, "float32", "random"),
    ("opt", False, 1, "float32", "mean"),
]


def write_words(path: Path, words: list[str] = WORDS) -> Path:
    rows = [json.dumps({"word": word, "impact": 9}, ensure_ascii=False) + "\n" for word in words]
    path.write_text("".join(rows), encoding="utf-8")
    return path


@dataclass
class Pair:
    """A trimmed folder, the folder extended out of it, and what the first one's files were before."""

    source: Path
    out: Path
    before: dict[str, str]
    init: str

    @cached_property
    def edit(self) -> dict[str, Any]:
        return read_json(self.out / "vocab_edit.json")

    @cached_property
    def n_old(self) -> int:
        return read_json(self.source / "vocab_edit.json")["n_tokens"]

    @cached_property
    def tokenizers(self) -> tuple[Any, Any]:
        return AutoTokenizer.from_pretrained(self.source), AutoTokenizer.from_pretrained(self.out)

    @cached_property
    def models(self) -> tuple[Any, Any]:
        return load(self.source), load(self.out)


def make_pair(folder: Path, family: str = "qwen2", *, init: str = "mean", **how: Any) -> Pair:
    positions = {"gpt2": "n_positions", "opt": "max_position_embeddings"}
    if family in positions:  # learned ones: the ladder reads 256 tokens at a time
        how[positions[family]] = 320
    base = build.make_checkpoint(folder / "base", family, **how)
    trim_vocab(base, folder / "base__trimm_vocab")
    source, out = folder / "base__trimm_vocab", folder / "base__extend_vocab"
    before = build.fingerprints(source)
    extend_vocab(source, out, words=write_words(folder / "words.jsonl"), init=init)
    return Pair(source, out, before, init)


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}-{'tied' if c[1] else 'untied'}-{c[3]}")
def pair(request, tmp_path_factory) -> Pair:
    family, tied, shards, dtype, init = request.param
    folder = tmp_path_factory.mktemp(family)
    return make_pair(folder, family, init=init, tied=tied, shards=shards, dtype=dtype)


@pytest.fixture(scope="module")
def qwen2(trimmed, tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("qwen2")
    source = trimmed(tied=False)
    before = build.fingerprints(source)
    extend_vocab(source, folder / "out", words=write_words(folder / "words.jsonl"), init="mean")
    return Pair(source, folder / "out", before, "mean")


@pytest.fixture
def words(tmp_path) -> Path:
    return write_words(tmp_path / "words.jsonl")


# Every family


def test_old_rows_keep_their_bits_and_padding_is_zero(pair):
    old, new = stored(pair.source), stored(pair.out)
    assert old.keys() == new.keys()
    names = find_vocab_tensors(read_checkpoint(pair.source)).names
    n_old, n_new, rows = pair.n_old, pair.edit["n_tokens"], pair.edit["vocab_size"]
    assert n_new == n_old + len(WORDS) and rows % 64 == 0 and rows - n_new < 64
    for name, tensor in old.items():
        if name in names:
            assert new[name].shape == (rows, *tensor.shape[1:]) and new[name].dtype == tensor.dtype
            assert torch.equal(new[name][:n_old], tensor[:n_old]), name
            assert not new[name][n_new:].any(), name
        else:
            assert torch.equal(new[name], tensor), name
    assert build.fingerprints(pair.source) == pair.before


def expected_row(init: str, pieces: torch.Tensor, *, is_input: bool) -> torch.Tensor:
    """The formulas once more, in torch: pieces (n, D) float32 in reading order."""
    if init == "mean":
        return pieces.mean(0)
    pieces = pieces if is_input else pieces.flip(0)
    if init == "first_last":
        return pieces[-1]
    weights = torch.softmax(2.0 * torch.arange(len(pieces)), 0)
    return (weights[:, None] * pieces).sum(0)


def test_new_rows_are_those_of_the_formula(pair):
    """Rows that transformers has loaded, ids that transformers has made, the formula in torch."""
    old_model, new_model = pair.models
    tokenizer = pair.tokenizers[0]
    tied = read_json(pair.source / "config.json")["tie_word_embeddings"]
    loose = {"float32": 1e-6, "bfloat16": 2**-8, "float16": 2**-11}
    is_bf16 = {str(t.dtype) for t in stored(pair.out).values()} == {"torch.bfloat16"}
    rounding = loose["bfloat16" if is_bf16 else "float16" if pair.init == "first_last" else "float32"]
    for ends in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(model, ends)().weight.detach() for model in (old_model, new_model))
        norms = old[: pair.n_old].norm(dim=1)
        for at, content in enumerate(CONTENTS):
            made = new[pair.n_old + at]
            assert torch.isfinite(made).all()
            assert norms.min() * 0.99 <= made.norm() <= norms.max() * 1.01
            if pair.init == "random":
                continue
            ids = tokenizer(content, add_special_tokens=False).input_ids
            assert len(ids) > 1 and ids == pair.edit["replaces"][at]
            wanted = expected_row(pair.init, old[ids], is_input=tied or ends == "get_input_embeddings")
            wanted *= (wanted.norm().clamp(norms.min(), norms.max()) / wanted.norm()).item()
            torch.testing.assert_close(made, wanted, rtol=rounding, atol=1e-6)


def test_logits_over_the_old_columns_are_the_old_ones(pair):
    old_tokenizer, new_tokenizer = pair.tokenizers
    text = "The quick brown fox jumps over 13 lazy dogs, ma má mà."
    ids = old_tokenizer(text).input_ids
    assert new_tokenizer(text).input_ids == ids
    with torch.no_grad():
        old, new = (model(torch.tensor([ids])).logits for model in pair.models)
    assert new.shape[-1] == pair.edit["vocab_size"] and old.std() > 0.01
    torch.testing.assert_close(new[..., : pair.n_old], old[..., : pair.n_old], atol=1e-5, rtol=0)


def test_words_are_one_token_in_running_text_and_texts_come_back(pair):
    old, new = pair.tokenizers
    for at, content in enumerate(CONTENTS):
        new_id = pair.n_old + at
        assert new(content, add_special_tokens=False).input_ids == [new_id]
        for text in (
            f"Xin chào{content}, mai.",
            f"a{content}{content}\n\n b",
            f"({content})",
            f"a {content}",
        ):
            ids = new(text, add_special_tokens=False).input_ids
            before = old(text, add_special_tokens=False).input_ids
            assert new_id in ids and len(ids) < len(before)
            assert new.decode(ids) == old.decode(before)
            assert new.decode(ids, skip_special_tokens=True) == old.decode(before, skip_special_tokens=True)
        decomposed = unicodedata.normalize("NFD", content)
        ids = new(decomposed, add_special_tokens=False).input_ids
        if read_tokenizer_json(pair.out).has_nfc:
            assert ids == [new_id]
        else:
            assert ids == old(decomposed, add_special_tokens=False).input_ids


def test_generates_a_new_word_and_never_padding(pair):
    """A model whose head prefers a new word writes it; padding cannot be chosen at any temperature."""
    model, tokenizer = load(pair.out), pair.tokenizers[1]
    first = pair.n_old
    suppressed = model.generation_config.suppress_tokens
    assert set(range(pair.edit["n_tokens"], pair.edit["vocab_size"])) <= set(suppressed)
    assert not set(range(first + len(WORDS))) & set(range(first, pair.edit["n_tokens"])) & set(suppressed)
    prompt = torch.tensor([tokenizer("Xin chào").input_ids] * 16)
    torch.manual_seed(0)
    ids = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=1000.0, top_k=0,
        max_new_tokens=12,
    )[:, prompt.shape[1] :]  # fmt: skip
    chosen = set(ids.flatten().tolist())
    assert not chosen & set(suppressed)
    bias = [[[first], 1e4]]
    forced = model.generate(
        prompt[:1], attention_mask=torch.ones_like(prompt[:1]), do_sample=False, max_new_tokens=3,
        sequence_bias=bias,
    )[0, prompt.shape[1] :]  # fmt: skip
    assert tokenizer.decode(forced) == CONTENTS[0] * 3


def test_the_ladder_is_clean(pair, capsys):
    assert verify_edit(pair.source, pair.out)
    report = read_json(pair.out / "verify_report.json")
    numbers = {name: value for check in report["checks"] for name, value in check["numbers"].items()}
    assert numbers["same_argmax"] == numbers["positions"] > 50
    assert numbers["with_new_tokens"] > 0 and numbers["mismatches"] == 0
    assert numbers["tokens_per_char"] < numbers["tokens_per_char_base"]
    assert 0 < numbers["new_probability_mean"] < 1
    assert "3 rows" in capsys.readouterr().out


# What is written


def test_every_file_names_the_new_tokens(qwen2):
    n_old, n_new = qwen2.n_old, qwen2.edit["n_tokens"]
    tokenizer = read_tokenizer_json(qwen2.out)
    assert [tokenizer.tokens[i] for i in range(n_old, n_new)] == CONTENTS
    shape = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    entries = tokenizer.data["added_tokens"][-len(WORDS) :]
    assert entries == [{"id": n_old + at, "content": c, **shape} for at, c in enumerate(CONTENTS)]
    decoder = read_json(qwen2.out / "tokenizer_config.json")["added_tokens_decoder"]
    assert decoder[str(n_new - 1)] == {"content": CONTENTS[-1], **shape}
    for name in ("vocab.json", "merges.txt"):
        assert (qwen2.out / name).read_bytes() == (qwen2.source / name).read_bytes()
    assert read_json(qwen2.out / "config.json")["vocab_size"] == qwen2.edit["vocab_size"]


def test_added_tokens_json_and_nested_vocab_size(qwen2, tmp_path, words):
    source = Path(shutil.copytree(qwen2.source, tmp_path / "source"))
    write_json(source / "added_tokens.json", read_tokenizer_json(source).added)
    rows = read_json(source / "config.json")["vocab_size"]
    edit_json(source / "config.json", text_config={"vocab_size": rows})
    extend_vocab(source, tmp_path / "out", words=words, init="mean")
    assert read_json(tmp_path / "out" / "added_tokens.json") == read_tokenizer_json(tmp_path / "out").added
    config = read_json(tmp_path / "out" / "config.json")
    assert config["text_config"]["vocab_size"] == config["vocab_size"] == qwen2.edit["vocab_size"]


def test_vocab_edit_is_chained(qwen2):
    record = qwen2.edit
    assert (record["format"], record["version"], record["task"]) == ("vocab-edit", 1, "extend_vocab")
    assert record["base_model"] == qwen2.source.name
    assert record["base_tokenizer_sha256"] == qwen2.before["tokenizer.json"]
    assert record["new_to_old"] == [*range(qwen2.n_old), *[None] * len(WORDS)]
    assert record["words"] == WORDS and record["init"] == {"name": "mean", "base": None}
    assert record["words_file"]["name"] == "words.jsonl"
    trimmed = read_json(qwen2.source / "vocab_edit.json")
    assert record["previous"] == trimmed and "previous" not in trimmed
    assert record["suppressed"][FOREIGN] == trimmed["suppressed"][FOREIGN]
    assert record["suppressed"][PADDING] == list(range(record["n_tokens"], record["vocab_size"]))
    suppressed = read_json(qwen2.out / "generation_config.json")["suppress_tokens"]
    assert suppressed == sorted(i for ids in record["suppressed"].values() for i in ids)
    assert not set(suppressed) & set(trimmed["suppressed"][PADDING][: len(WORDS)])


def test_sentencepiece_model_agrees(tmp_path, words):
    """tokenizer.model knows the words as user-defined pieces with the same ids, and cuts texts alike."""
    import sentencepiece

    pair = make_pair(tmp_path, "gemma2")
    (name,) = read_spm_models(pair.out)
    model = spm.read_spm(pair.out / name)
    added = list(model.pieces)[-len(WORDS) :]
    assert [(p.piece, p.type) for p in added] == [(f"▁{word}", spm.USER_DEFINED) for word in WORDS]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(pair.out / name))
    encoder = load_encoder(pair.out)
    for text in [*build.COVERED, *(f"Xin{content}, a{content}" for content in CONTENTS)]:
        assert processor.encode(text) == encoder.encode(text, add_special_tokens=False).ids, text


def test_extending_again_appends(qwen2, tmp_path):
    more = write_words(tmp_path / "more.jsonl", ["chúng▁ta"])
    extend_vocab(qwen2.out, tmp_path / "twice", words=more, init="weighted")
    again = write_words(tmp_path / "again.jsonl")
    record = read_json(tmp_path / "twice" / "vocab_edit.json")
    assert record["n_tokens"] == qwen2.edit["n_tokens"] + 1
    assert record["previous"]["previous"]["task"] == "trimm_vocab"
    assert read_tokenizer_json(tmp_path / "twice").tokens[record["n_tokens"] - 1] == " chúng ta"
    assert verify_edit(qwen2.out, tmp_path / "twice")
    with pytest.raises(UserError, match="' hôm nay' is already one token of"):
        extend_vocab(tmp_path / "twice", tmp_path / "thrice", words=again)


def test_extended_folder_can_be_trimmed(qwen2, tmp_path):
    trim_vocab(qwen2.out, tmp_path / "out")
    tokenizer = read_tokenizer_json(tmp_path / "out")
    assert set(CONTENTS) <= tokenizer.added.keys()


def test_an_untrimmed_model_is_extended_into_its_padding_rows(checkpoint, tmp_path, words):
    base = checkpoint()
    n_tokens, rows = len(read_tokenizer_json(base).tokens), read_json(base / "config.json")["vocab_size"]
    extend_vocab(base, tmp_path / "out", words=words)
    record = read_json(tmp_path / "out" / "vocab_edit.json")
    assert record["n_tokens"] == n_tokens + len(WORDS) and record["vocab_size"] < rows
    assert "previous" not in record
    assert verify_edit(base, tmp_path / "out")


def test_zeros_stay_zero(qwen2, tmp_path, words):
    extend_vocab(qwen2.source, tmp_path / "out", words=words, init="zeros")
    made = stored(tmp_path / "out")
    assert not made["lm_head.weight"][qwen2.n_old :].any()
    assert verify_edit(qwen2.source, tmp_path / "out")


def test_pad_multiple_of_one_leaves_no_padding(qwen2, tmp_path, words):
    extend_vocab(qwen2.source, tmp_path / "out", words=words, pad_multiple=1)
    record = read_json(tmp_path / "out" / "vocab_edit.json")
    assert record["vocab_size"] == record["n_tokens"] and record["pad_rows"] is None


def test_same_seed_same_bytes(qwen2, tmp_path, words):
    names = {"one": 5, "two": 5, "other": 6}
    for name, seed in names.items():
        extend_vocab(qwen2.source, tmp_path / name, words=words, init="random", seed=seed)
    one, two, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in names)
    assert one == two != other
    assert read_json(tmp_path / "one" / "vocab_edit.json")["init"]["seed"] == 5


# Inits that need more than the word's tokens


def test_english_equivalents(qwen2, tmp_path, words, capsys):
    pairs = "weather\thôm nay\ntomorrow\tHôm nay\n\nlazy dogs\tthanh điệu\nbrown\tkhông có trong danh sách\n"
    (tmp_path / "pairs.tsv").write_text(unicodedata.normalize("NFD", pairs), encoding="utf-8")
    extend_vocab(
        qwen2.source, tmp_path / "out", words=words, init="english", dictionary=tmp_path / "pairs.tsv"
    )
    assert "2 words have no English equivalent: mean instead" in capsys.readouterr().out
    facts = read_json(tmp_path / "out" / "vocab_edit.json")["init"]
    assert facts["english"] == [["weather", "tomorrow"], ["lazy dogs"], [], []]
    tokenizer, rows = qwen2.tokenizers[0], stored(qwen2.source)["model.embed_tokens.weight"]
    ids = [tokenizer(f" {word}").input_ids for word in ("weather", "tomorrow", "lazy dogs")]
    whole = [rows[i].mean(0) for i in ids[:2] if len(i) == 1] or [rows[i].mean(0) for i in ids[:2]]
    made = stored(tmp_path / "out")["model.embed_tokens.weight"][qwen2.n_old :]
    torch.testing.assert_close(made[0], torch.stack(whole).mean(0))
    torch.testing.assert_close(made[1], rows[ids[2]].mean(0))
    torch.testing.assert_close(made[2], rows[tokenizer(CONTENTS[2]).input_ids].mean(0))


def test_rows_that_trimming_removed_come_from_the_base(tmp_path, words):
    """ " weather" goes in trimming; with -b the equivalent still has its one row."""
    base = build.make_checkpoint(tmp_path / "base", tied=False)
    tokenizer = read_tokenizer_json(base)
    gone = tokenizer.vocab["Ġis"]
    write_json(tmp_path / "kept.json", [i for i in tokenizer.tokens if i != gone])
    trim_vocab(base, tmp_path / "trimmed", keep_paths=[tmp_path / "kept.json"])
    assert "Ġis" not in read_tokenizer_json(tmp_path / "trimmed").vocab
    (tmp_path / "pairs.jsonl").write_text('{"word": "hôm▁nay", "en": ["is"]}\n', encoding="utf-8")
    for name, given in (("with", base), ("without", None)):
        extend_vocab(
            tmp_path / "trimmed", tmp_path / name, base=given, words=words, init="english",
            dictionary=tmp_path / "pairs.jsonl",
        )  # fmt: skip
    n_old = read_json(tmp_path / "trimmed" / "vocab_edit.json")["n_tokens"]
    for tensor in ("model.embed_tokens.weight", "lm_head.weight"):
        row = stored(base)[tensor][gone]
        assert torch.equal(stored(tmp_path / "with")[tensor][n_old], row)
        assert not torch.equal(stored(tmp_path / "without")[tensor][n_old], row)
    assert read_json(tmp_path / "with" / "vocab_edit.json")["init"]["base"] == base.name


def test_neighbours_by_hidden_state(qwen2, tmp_path, words):
    extend_vocab(qwen2.source, tmp_path / "out", words=words, init="neighbours")
    facts = read_json(tmp_path / "out" / "vocab_edit.json")["init"]
    tokenizer, model = qwen2.tokenizers[0], qwen2.models[0]
    parsed = read_tokenizer_json(qwen2.source)
    anchors = word_tokens(parsed, load_encoder(qwen2.source))
    assert len(anchors) > 5 and all(token.startswith("Ġ") for token in anchors)

    def state(ids: list[int]) -> torch.Tensor:
        start = read_json(qwen2.source / "config.json")["eos_token_id"]
        with torch.no_grad():
            output = model(torch.tensor([[start, *ids]]), output_hidden_states=True)
        return output.hidden_states[-1][0, -1]

    states = torch.stack([state([parsed.vocab[token]]) for token in anchors])
    for at, content in enumerate(CONTENTS):
        cosines = torch.cosine_similarity(states, state(tokenizer(content).input_ids)[None])
        assert facts["neighbours"][at] == [anchors[i] for i in cosines.topk(5).indices]
    ids = [parsed.vocab[token] for token in facts["neighbours"][0]]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        made, old = (stored(folder)[name] for folder in (tmp_path / "out", qwen2.source))
        wanted, norms = old[ids].mean(0), old[: qwen2.n_old].norm(dim=1)
        wanted *= wanted.norm().clamp(norms.min(), norms.max()) / wanted.norm()
        torch.testing.assert_close(made[qwen2.n_old], wanted)


# The file of words


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("w.jsonl", "", "holds no word"),
        ("w.txt", "\n \n", "holds no word"),
        ("w.csv", "a b\n", "is neither .jsonl nor .txt"),
        ("w.jsonl", "hôm nay\n", "w.jsonl:1 is not JSON"),
        ("w.jsonl", '{"text": "hôm nay"}\n', 'w.jsonl:1 has no "word" string'),
        ("w.jsonl", '{"word": ""}\n', "has the word ''"),
        ("w.jsonl", '{"word": "▁"}\n', "expected syllables with one ▁ between two"),
        ("w.txt", "hôm\u200bnay\n", "expected syllables with one ▁ between two"),
        ("w.txt", "<|hôm nay|>\n", "looks like a control token"),
        ("w.txt", "thời gian\n", "' thời gian' is already one token of"),
        ("w.txt", "start\nend\n", "'start' is part of '<|im_start|>', a special token of"),
        ("w.txt", b"\xff\xfe", "is not UTF-8 text"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_taken(qwen2, tmp_path, name, text, expected):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        extend_vocab(qwen2.source, tmp_path / "out", words=tmp_path / name)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [name], "something was written"


def test_a_word_that_cannot_be_taken_never_costs_the_list(qwen2, tmp_path, capsys):
    text = "hôm nay\nhôm_nay\nho\u0302m nay\n<|x|>\nthời gian\nstart\nthanh điệu\nTiếng Việt\n"
    (tmp_path / "w.txt").write_text(text, encoding="utf-8")
    extend_vocab(qwen2.source, tmp_path / "out", words=tmp_path / "w.txt", init="mean")
    said = capsys.readouterr().out
    assert "left out: 5 of 8 rows" in said and "w.txt:3 has 'hôm nay', as line 1 does" in said
    record = read_json(tmp_path / "out" / "vocab_edit.json")
    assert record["words"] == ["hôm▁nay", "thanh▁điệu", "Tiếng▁Việt"]
    assert verify_edit(qwen2.source, tmp_path / "out")


def test_number_of_words(qwen2, tmp_path, words):
    with pytest.raises(UserError, match=r"--num_words is 5, .*words.jsonl has 4 words"):
        extend_vocab(qwen2.source, tmp_path / "out", words=words, num_words=5)
    with pytest.raises(UserError, match="--num_words is 0, expected 1 or more"):
        extend_vocab(qwen2.source, tmp_path / "out", words=words, num_words=0)
    extend_vocab(qwen2.source, tmp_path / "two", words=words, num_words=2)
    assert read_json(tmp_path / "two" / "vocab_edit.json")["words"] == WORDS[:2]
    extend_vocab(qwen2.source, tmp_path / "all", words=words)
    assert read_json(tmp_path / "all" / "vocab_edit.json")["words"] == WORDS


def test_without_words_the_bundled_list_is_taken(qwen2, tmp_path, words, monkeypatch):
    monkeypatch.setattr(extend, "WORDS", tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="none.jsonl is missing; give a file of words with --words FILE"):
        extend_vocab(qwen2.source, tmp_path / "out")
    monkeypatch.setattr(extend, "WORDS", words)
    extend_vocab(qwen2.source, tmp_path / "out", num_words=1)
    assert read_json(tmp_path / "out" / "vocab_edit.json")["words"] == WORDS[:1]


def rows_of(taken: extend.Taken) -> tuple[list[str], list[tuple[str, str]]]:
    return [word.replace(" ", "▁") for word in taken.words], taken.merges


@pytest.mark.parametrize(
    "flags, words, syllables",
    [
        ({}, 4, 6),  # whole, as it was chosen
        ({"num_tokens": 1}, 1, 0),
        ({"num_tokens": 4}, 2, 2),
        ({"num_tokens": 9}, 4, 5),
        ({"num_words": 2}, 2, 0),
        ({"syllables": 3}, 4, 3),
        ({"syllables": 0}, 4, 0),
        ({"num_words": 0, "syllables": 3}, 0, 3),
        ({"num_words": 3, "syllables": 6}, 3, 6),
    ],
)
def test_how_much_of_a_mixed_list_is_taken(tmp_path, flags, words, syllables):
    merges = [("t", "r"), ("tr", "ung"), ("g", "ian"), ("x", "q"), ("y", "q"), ("z", "q")]
    file = write_list(tmp_path / "list.jsonl", merges)  # word, syllable, word, syllable, …
    none = dict.fromkeys(("num_tokens", "num_words", "syllables"))
    taken = extend.take_list(file, **{**none, **flags})
    assert rows_of(taken) == (WORDS[:words], merges[:syllables])
    assert (taken.words_there, taken.syllables_there) == (4, 6)


def test_of_the_bundled_list_a_stated_number_of_words_is_taken():
    taken = extend.take_list(None, num_tokens=None, num_words=None, syllables=None)
    assert (len(taken.words), taken.merges) == (extend.NUM_WORDS, [])
    assert taken.words_there > extend.NUM_WORDS and taken.syllables_there > 0
    taken = extend.take_list(None, num_tokens=100, num_words=None, syllables=None)
    assert len(taken.words) + len(taken.merges) == 100 and taken.words and taken.merges


@pytest.mark.parametrize(
    "flags, expected",
    [
        ({"num_tokens": 5, "num_words": 2}, "--num_tokens 5 takes words and syllables .*--num_words counts"),
        ({"num_tokens": 5, "syllables": 2}, "--num_tokens 5 takes words and syllables .*--syllables counts"),
        ({"num_tokens": 0}, "--num_tokens is 0, .*has 4 words and 6 syllables; give 1 to 10"),
        ({"num_tokens": 11}, "--num_tokens is 11, .*has 4 words and 6 syllables; give 1 to 10"),
    ],
)
def test_numbers_that_cannot_be_taken(qwen2, tmp_path, flags, expected):
    file = write_list(tmp_path / "list.jsonl", [(letter, "q") for letter in "abcdef"])
    with pytest.raises(UserError, match=expected):
        extend_vocab(qwen2.source, tmp_path / "out", words=file, **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["list.jsonl"]


@pytest.mark.slow
def test_a_chosen_list_is_taken_whole(checkpoint, tmp_path, capsys):
    """build_vi_words.py --choose N --syllables auto → extend_vocab --words FILE: all N tokens."""
    base = checkpoint()
    corpus = tmp_path / "texts.txt"
    corpus.write_text("\n".join([*TEXTS, *build.COVERED] * 3), encoding="utf-8")
    chosen = tmp_path / "chosen.jsonl"
    options = ["--choose", "12", "--syllables", "auto", "--min_freq", "1", "--workers", "1"]
    assert build_vi_words.main(["-m", str(base), str(corpus), *options, "-o", str(chosen)]) == 0
    rows = [json.loads(line) for line in chosen.read_text(encoding="utf-8").splitlines()]
    capsys.readouterr()
    for out, flags, count in (("all", [], 12), ("some", ["--num_tokens", "10"], 10)):
        command = ["-m", str(base), "-t", "extend_vocab", "--words", str(chosen), "-o", str(tmp_path / out)]
        assert model_edit.main([*command, *flags]) == 0
        record = EditRecord.read(tmp_path / out)
        assert record.words == [row["word"] for row in rows[:count] if "word" in row]
        merges = [row["merge"] for row in rows[:count] if "merge" in row]
        assert [row["merge"] for row in record.syllables or []] == merges
        assert record.words and merges and record.n_tokens == record.base_n_tokens + count
        printed = capsys.readouterr().out
        assert f"{len(record.words)} of " in printed and f"{len(merges)} of " in printed


def test_a_record_of_an_unknown_format_is_refused(qwen2, tmp_path, words):
    """Not taken for a folder in which nothing is suppressed."""
    source = Path(shutil.copytree(qwen2.source, tmp_path / "source"))
    edit_json(source / "vocab_edit.json", version=2)
    with pytest.raises(UserError, match=r"vocab_edit.json has format 'vocab-edit' version 2, expected .* 1"):
        extend_vocab(source, tmp_path / "out", words=words)
    assert not (tmp_path / "out").exists()
    (source / "vocab_edit.json").unlink()
    extend_vocab(source, tmp_path / "out", words=words)
    assert "previous" not in read_json(tmp_path / "out" / "vocab_edit.json")


@pytest.mark.parametrize(
    "name, text, expected",
    [
        (None, "", "--init english needs equivalents"),
        ("d.tsv", "", "holds no pair of words"),
        ("d.tsv", "no tab\n", "d.tsv:1 is neither a row"),
        ("d.jsonl", '{"word": "hôm▁nay"}\n', "d.jsonl:1 is neither a row"),
        ("d.jsonl", '{"word": "hôm▁nay", "en": "today"}\n', "d.jsonl:1 is neither a row"),
        ("d.jsonl", '{"word": "hôm▁nay", "en": [""]}\n', "d.jsonl:1 has an equivalent that is no word"),
        ("d.tsv", "time\tthời gian\n", "knows none of the words"),
    ],
)
def test_dictionaries_that_cannot_be_taken(qwen2, tmp_path, words, monkeypatch, name, text, expected):
    monkeypatch.setattr(word_list, "DICTIONARY", tmp_path / "none.jsonl")
    given = tmp_path / name if name else None
    if given:
        given.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=expected):
        extend_vocab(qwen2.source, tmp_path / "out", words=words, init="english", dictionary=given)
    assert not (tmp_path / "out").exists()


# Tokenizers that cannot be extended


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_t5_is_refused(checkpoint, tmp_path, words, family):
    base = checkpoint(family)
    with pytest.raises(UserError, match="puts spaces beside added tokens, so it cannot be extended"):
        extend_vocab(base, tmp_path / "out", words=words)
    assert not (tmp_path / "out").exists()


def test_words_that_the_normalizer_changes_are_left_out(qwen2, tmp_path, words, capsys):
    source = Path(shutil.copytree(qwen2.source, tmp_path / "source"))
    data = read_json(source / "tokenizer.json")
    data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
    write_json(source / "tokenizer.json", data)
    extend_vocab(source, tmp_path / "out", words=words, init="mean")
    assert "' Tiếng Việt' is changed (to ' tiếng việt') by the normalizer" in capsys.readouterr().out
    assert read_json(tmp_path / "out" / "vocab_edit.json")["words"] == [w for w in WORDS if "T" not in w]


def test_a_dummy_prefix_is_refused(tmp_path, words):
    """Llama-2's first tokenizer.json put ▁ before every piece of text between added tokens."""
    base = build.make_checkpoint(tmp_path / "base", "gemma2")
    data = read_json(base / "tokenizer.json")
    prepend = {"type": "Prepend", "prepend": "▁"}
    data["normalizer"] = {"type": "Sequence", "normalizers": [prepend, data["normalizer"]]}
    write_json(base / "tokenizer.json", data)
    with pytest.raises(UserError, match="by the normalizer|puts spaces beside added tokens"):
        extend_vocab(base, tmp_path / "out", words=words)


def test_pieces_beside_more_tokens_are_refused(tmp_path, words):
    base = build.make_checkpoint(tmp_path / "base", "gemma2")
    data = read_json(base / "tokenizer.json")
    at = len(read_tokenizer_json(base).tokens)
    data["added_tokens"].append({**data["added_tokens"][0], "id": at, "content": "<extra>"})
    write_json(base / "tokenizer.json", data)
    with pytest.raises(UserError, match=f"tokenizer.model has {at} pieces, tokenizer.json {at + 1} tokens"):
        extend_vocab(base, tmp_path / "out", words=words)


def test_a_base_of_another_model_is_refused(qwen2, checkpoint, tmp_path, words):
    other = checkpoint("llama", tied=False)
    with pytest.raises(UserError, match="-b must be the checkpoint that the model was trimmed out of"):
        extend_vocab(qwen2.source, tmp_path / "out", base=other, words=words)
    other = build.make_checkpoint(tmp_path / "wide", "qwen2", tied=False, hidden_size=16)
    with pytest.raises(UserError, match=r"has rows F32 \(32,\), in .*wide \('F32', \(16,\)\)"):
        extend_vocab(qwen2.source, tmp_path / "out", base=other, words=words)


# The script


def test_the_command(tmp_path, words, capsys):
    base = build.make_checkpoint(tmp_path / "Tiny", "qwen2")
    trimmed = tmp_path / "Tiny__trimm_vocab"
    assert model_edit.main(["-m", str(base), "-t", "trimm_vocab"]) == 0
    argv = ["-b", str(base), "-m", str(trimmed), "-t", "extend_vocab", "--words", str(words)]
    assert model_edit.main([*argv, "--init", "weighted", "--num_words", "3"]) == 0
    out = tmp_path / "Tiny__extend_vocab"
    record = read_json(out / "vocab_edit.json")
    assert record["words"] == WORDS[:3] and record["made_by"].startswith("model_edit.py ")
    assert record["init"] == {"name": "weighted", "base": base.name}
    assert f"python3 model_chat.py {out}" in capsys.readouterr().out
    with pytest.raises(UserError, match="Tiny__extend_vocab already exists"):
        model_edit.main(argv)
    assert model_edit.main([*argv[2:4], "-b", str(trimmed), "-m", str(out), "-t", "verify_edit"]) == 0


# Real tokenizers


@pytest.mark.assets
@pytest.mark.parametrize("name", ["t5-v1_1", "SYNTHETIC-mt5-like-32k"])
def test_real_unigram_tokenizers_are_refused(real, name):
    folder = real(name)
    with pytest.raises(UserError, match="so it cannot be extended"):
        extended_tokenizer(folder)


@pytest.mark.assets
@pytest.mark.parametrize("name", ["llama-3.2-instruct", "gemma-2-it", "qwen3"])
def test_real_tokenizers_take_words_and_change_no_other_text(real, documents, name):
    folder = real(name)
    after, new = extended_tokenizer(folder)
    with_words = 0
    for text in documents:
        text = unicodedata.normalize("NFC", text)
        before, ids = folder.encode(text), after.encode(text, add_special_tokens=False).ids
        if new & set(ids):
            with_words += 1
            assert len(ids) < len(before)
        else:
            assert ids == before, text
        decoded = folder.encoder.decode(before, skip_special_tokens=False)
        assert after.decode(ids, skip_special_tokens=False) == decoded
    assert with_words > 20


def extended_tokenizer(folder: Folder) -> tuple[Tokenizer, set[int]]:
    """Return a tokenizer with some common words, checked as extend_vocab does, and their ids."""
    common = ["thời gian", "Việt Nam", "có thể", "sử dụng", "phát triển"]
    tokens = make_tokens(common, folder.tokenizer, folder.encoder)
    plan = extend_plan(folder.tokenizer, tokens, keep_out=False)
    data = folder.tokenizer.trimmed(plan.new_to_old, [token.entry() for token in tokens])
    after = Tokenizer.from_str(json.dumps(data))
    spm_model = None
    for model in folder.spm_models.values():
        pieces = [token.content.replace(" ", "▁") for token in tokens]
        spm_model = spm.select_pieces(model, list(range(len(model.pieces))), pieces)
    check_extended(
        tokens, path=folder.tokenizer.path, before=folder.encoder, after=after, spm_model=spm_model
    )
    return after, set(plan.new_ids)


@pytest.mark.assets
def test_real_qwen(assets, tmp_path):
    """The real vocabulary with a small matrix: the words of running text, composed and decomposed."""
    base = tmp_path / "base"
    shutil.copytree(assets / "tokenizers" / "qwen2.5-instruct", base)
    for path in (base, *base.iterdir()):
        path.chmod(0o755)
    rows = np.random.default_rng(0).standard_normal((151_936, 4)).astype(np.float32)
    build.write_safetensors(
        base / "model.safetensors", {"model.embed_tokens.weight": ("F32", [151_936, 4], rows.tobytes())}
    )
    edit_json(base / "config.json", tie_word_embeddings=True)
    real_words = ["thời▁gian", "Việt▁Nam", "có▁thể", "thành▁phố", "học▁sinh"]
    extend_vocab(base, tmp_path / "out", words=write_words(tmp_path / "w.jsonl", real_words), init="weighted")
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "out"))
    ids = dict(zip(real_words, range(151_665, 151_670), strict=True))
    text = "Trong thời gian ở Việt Nam, học sinh có thể đi thành phố."
    found = new(text).input_ids
    assert set(ids.values()) <= set(found) and len(found) < len(old(text).input_ids)
    assert new(unicodedata.normalize("NFD", text)).input_ids == found
    assert new.decode(found) == text == old.decode(old(text).input_ids)
    assert new(" thời gian").input_ids == [151_665]
    weights = np.exp(2.0 * np.arange(3))
    pieces = old(" thời gian").input_ids
    assert len(pieces) == 3
    made = stored(tmp_path / "out")["model.embed_tokens.weight"][151_665].numpy()
    np.testing.assert_allclose(made, weights / weights.sum() @ rows[pieces], rtol=1e-5)
    chat = [{"role": "user", "content": "Chào bạn, có thể giúp tôi không?"}]
    before, after = (t.apply_chat_template(chat, tokenize=False) for t in (old, new))
    assert before == after and ids["có▁thể"] in new(after).input_ids
