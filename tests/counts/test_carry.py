"""Counts carried over to another tokenizer: by hand, against counts of a text, and from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import SENTENCES
from tokenizers import Tokenizer, models, pre_tokenizers

import build_vocab
from vocabkit.counts.carry import carry_counts
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.encoder import speller
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, read_tokenizer_json

TEXT = "\n".join(SENTENCES[:6])


def counts_of(folder, text: str) -> dict[int, int]:
    ids = folder.encoder.encode(text, add_special_tokens=False).ids
    return {int(i): int(n) for i, n in zip(*np.unique(ids, return_counts=True), strict=True)}


def byte_level(folder: Path, *merges: tuple[str, str]) -> TokenizerJson:
    """A tokenizer of the 256 bytes and these merges."""
    vocab = {char: n for n, char in enumerate([*bpe.CHAR_TO_BYTE, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocab, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return read_tokenizer_json(folder)


def test_by_hand(tmp_path):
    source = byte_level(tmp_path / "source", ("b", "c"))
    target = byte_level(tmp_path / "target", ("a", "b"), ("c", "d"), ("ab", "cd"))
    counts = {source.vocab[token]: n for token, n in {"a": 10, "bc": 7, "d": 4}.items()}
    carried = carry_counts(counts, source, target)
    assert {target.tokens[i]: n for i, n in carried.items()} == {
        "a": 10,
        "b": 7,  # target spells bc as b, c: both get its count
        "c": 7,
        "d": 4,
        "abcd": 2,  # a, bc, d for source: at most 4 times, 21 (10 7 4) / 21³ by chance; ⁴√(4³ · 280 / 21²)
    }  # ab is a, b for source, and b alone was never counted


@pytest.mark.parametrize("kind", ["qwen", "llama3", "gemma", "t5"])
def test_a_tokenizers_own_counts_come_back(tiny, kind):
    """Each token is spelled by itself then, both ways; only added tokens lose their counts."""
    tokenizer = tiny(kind).tokenizer
    spell = speller(tokenizer)
    whole = {i: data for i, data in tokenizer.token_bytes.items() if spell(data) == [i]}
    assert len(whole) > len(tokenizer.tokens) / 2
    counts = {i: 3 + i for i in whole if i not in tokenizer.added.values()}
    assert carry_counts(counts, tokenizer, tokenizer).items() >= counts.items()


@pytest.mark.parametrize("target_kind", ["llama3", "gemma", "t5"])
def test_what_a_text_uses_is_seen(tiny, target_kind):
    """Every token of the text is carried a count, but those that join what the counted tokenizer never has
    side by side; and no added token is."""
    source, target = tiny("qwen"), tiny(target_kind)
    carried = carry_counts(counts_of(source, TEXT), source.tokenizer, target.tokenizer)
    used = counts_of(target, TEXT)
    seen = sum(n for i, n in used.items() if carried.get(i))
    assert seen >= 0.8 * sum(used.values())
    assert not carried.keys() & set(target.tokenizer.added.values())


def test_bytes_that_are_no_text_have_no_spelling_in_tokenizers_of_text(tiny):
    broken = "ế".encode()[:2]
    assert speller(tiny("gemma").tokenizer)(broken) == []
    tokenizer = tiny("qwen").tokenizer
    assert b"".join(tokenizer.token_bytes[i] for i in speller(tokenizer)(broken)) == broken


def test_from_the_command_line(tiny, tmp_path):
    source, target = tiny("qwen"), tiny("gemma")
    write_json(tmp_path / "counts.json", {str(i): n for i, n in counts_of(source, TEXT).items()})
    command = ["-m", str(target.path), "--counts", str(tmp_path / "counts.json")]
    out = tmp_path / "lists"
    lists = [*command, "--counts_of", str(source.path), "--min_count", "1", "-o", str(out)]
    assert build_vocab.main(lists) == 0
    rows = {
        row[1]: row[2]
        for path in out.glob("tokens_*.jsonl")
        for row in map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
    }
    expected = carry_counts(counts_of(source, TEXT), source.tokenizer, target.tokenizer)
    assert {i: n for i, n in rows.items() if n} == expected
    summary = read_json(out / "summary.json")
    assert len(summary["counts_of"]) == 64 and summary["counts_of"] != summary["fingerprint"]


def test_counts_of_needs_counts(tiny):
    with pytest.raises(UserError, match="--counts_of names the tokenizer .* --counts FILE"):
        build_vocab.main(["-m", str(tiny("qwen").path), "a.txt", "--counts_of", "x"])


def test_counts_of_a_third_tokenizer(tiny, tmp_path):
    source, target = tiny("gemma").path, tiny("qwen").path
    counts: Path = tmp_path / "counts.json"
    write_json(counts, {"100000": 1})
    command = [
        "-m",
        str(target),
        "--counts",
        str(counts),
        "--counts_of",
        str(source),
        "-o",
        str(tmp_path / "l"),
    ]
    with pytest.raises(UserError, match="the id 100000, .* no such token .* give the model"):
        build_vocab.main(command)
    content = {"format": "token-counts", "version": 1, "tokenizer_sha256": "abc", "counts": {}}
    write_json(counts, content)
    with pytest.raises(UserError, match="tokenizer abc…, the model given has"):
        build_vocab.main(command)
    assert not (tmp_path / "l").exists()
