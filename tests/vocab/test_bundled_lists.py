"""The lists in data/: made again byte for byte, found by their tokenizer, without what must not be there."""

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import build
import pytest
from reporting import Page
from tiny import ASSETS, ROOT

import build_vocab
import model_edit
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.text.languages import is_vietnamese_syllable
from vocabkit.text.unicode import first_foreign, has_emoji
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, read_tokenizer_json
from vocabkit.vocab.lists import find_bundled, read_keep

QWEN, LLAMA, GEMMA = (
    ROOT / "data" / name for name in ("qwen__1000__20000", "llama-3__1000__20000", "gemma-2__1000__20000")
)
TOKENIZER_OF = {QWEN: "qwen2.5-instruct", LLAMA: "llama-3.2-instruct", GEMMA: "gemma-2-it"}
EVERY = pytest.mark.parametrize("folder", [QWEN, LLAMA, GEMMA], ids=lambda path: path.name)


@cache
def rows_of(folder: Path, state: str) -> list[tuple[str, int, int]]:
    return [
        tuple(json.loads(line))
        for path in sorted(folder.glob(f"tokens_{state}__*.jsonl"))
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]
    ]


@cache
def real_tokenizer(name: str) -> TokenizerJson:
    if not (ASSETS / "tokenizers" / name).is_dir():
        pytest.skip(f"no real tokenizer: {ASSETS / 'tokenizers' / name} is missing")
    return read_tokenizer_json(ASSETS / "tokenizers" / name)


@EVERY
def test_summary_counts_its_files(folder):
    summary = read_json(folder / "summary.json")
    kept, removed = rows_of(folder, "kept"), rows_of(folder, "removed")
    assert (len(kept), len(removed)) == (summary["tokens_kept"], summary["tokens_removed"])
    assert len({row[1] for row in kept + removed}) == len(kept + removed), "a token is listed twice"


@EVERY
def test_no_foreign_character_stays_and_no_vietnamese_or_emoji_goes(folder):
    single = re.compile("<0x..>")  # bytes stay whatever they are; they are no characters
    assert [row for row in rows_of(folder, "kept") if first_foreign(single.sub("", row[0]))] == []
    removed = [row[0] for row in rows_of(folder, "removed")]
    assert [token for token in removed if is_vietnamese_syllable(token.strip(" "))] == []
    assert [token for token in removed if has_emoji(token) and not first_foreign(token)] == []


@pytest.fixture(scope="module")
def made_again(assets, tmp_path_factory) -> Callable[[Path], Path]:
    """A bundled list → the same made again from real counts, with its report.html; each is made once."""

    @cache
    def make(folder: Path) -> Path:
        counted = "llama-3.2" if folder == LLAMA else "qwen2.5"
        command = ["-m", str(assets / "tokenizers" / TOKENIZER_OF[folder])]
        command += ["--counts", str(assets / "token_counts" / counted / "counts.json.xz")]
        if folder == GEMMA:
            command += ["--counts_of", str(assets / "tokenizers" / TOKENIZER_OF[QWEN])]
        out = tmp_path_factory.mktemp("made") / folder.name
        build_vocab.main([*command, "-o", str(out)])
        return out

    return make


@pytest.mark.assets
@pytest.mark.slow
@EVERY
def test_made_again_byte_for_byte(made_again, folder):
    made = {path.name: path.read_bytes() for path in made_again(folder).iterdir() if path.suffix != ".html"}
    assert made == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.assets
@EVERY
def test_every_token_is_listed_and_every_byte_stays(folder):
    tokenizer = real_tokenizer(TOKENIZER_OF[folder])
    kept = {row[1] for row in rows_of(folder, "kept")}
    removed = {row[1] for row in rows_of(folder, "removed")}
    assert kept | removed == tokenizer.tokens.keys() - set(tokenizer.added.values())
    assert tokenizer.byte_ids() - set(tokenizer.added.values()) <= kept


@pytest.mark.assets
@pytest.mark.slow
@EVERY
def test_closed_over_nothing_missing(made_again, folder):
    """The report's tokens that stay are as many as the summary says; no foreign one is part of a closure."""
    tokenizer = real_tokenizer(TOKENIZER_OF[folder])
    kept, _ = read_keep([folder], token_bytes=tokenizer.token_bytes)
    columns = Page((made_again(folder) / "report.html").read_text(encoding="utf-8")).data["columns"]
    ids = range(len(columns["kinds"])) if columns["ids"] is None else columns["ids"]
    stays = [bool(kind[0]) for kind in columns["kind_names"]]
    closed = {token_id for token_id, kind in zip(ids, columns["kinds"], strict=True) if stays[kind]}
    assert closed >= kept | tokenizer.byte_ids() | tokenizer.referenced_ids()
    assert len(closed) == read_json(folder / "summary.json")["tokens_with_closure"]
    for token_id in closed - kept - set(tokenizer.added.values()):
        assert not first_foreign(tokenizer.token_bytes[token_id].decode("utf-8", "ignore"))


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen2.5-instruct", QWEN),
        ("qwen2-instruct", QWEN),
        ("qwen3", QWEN),
        ("llama-3.2-instruct", LLAMA),
        ("gemma-2-it", GEMMA),
        ("t5-v1_1", None),
    ],
)
def test_found_by_the_tokenizer(name, expected):
    tokenizer = real_tokenizer(name)
    assert find_bundled(tokenizer, ROOT / "data") == expected


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize("folder", [LLAMA, GEMMA], ids=lambda path: path.name)
def test_trimming_without_keep_takes_it(assets, tmp_path, capsys, folder):
    model = tmp_path / "model"
    model.mkdir()
    for path in (assets / "tokenizers" / TOKENIZER_OF[folder]).iterdir():
        (model / path.name).symlink_to(path)
    (model / "config.json").unlink()
    settings = read_json(assets / "tokenizers" / TOKENIZER_OF[folder] / "config.json")
    tokens = len(real_tokenizer(TOKENIZER_OF[folder]).tokens)
    write_json(
        model / "config.json",
        {**settings, "vocab_size": tokens, "hidden_size": 2, "tie_word_embeddings": True},
    )
    build.write_safetensors(
        model / "model.safetensors", {"model.embed_tokens.weight": ("BF16", [tokens, 2], 4 * tokens)}
    )
    assert model_edit.main(["-m", str(model), "-t", "trimm_vocab", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert f"data/{folder.name}" in printed
    assert f"{read_json(folder / 'summary.json')['tokens_with_closure']:,}" in printed


@pytest.mark.assets
@pytest.mark.slow
def test_the_closed_list_of_qwen_holds_the_words_of_real_english() -> None:
    tokenizer = real_tokenizer("qwen2.5-instruct")
    kept, _ = read_keep([QWEN], token_bytes=tokenizer.token_bytes)
    names = [tokenizer.tokens[token_id] for token_id in kept]
    closed = bpe.closure(names, bpe.rank_merges(tokenizer.merges).get)
    assert 85_000 <= len(closed) <= 101_000
    words: Counter[str] = Counter()
    for path in sorted((ASSETS / "corpora" / "en").iterdir()):
        words.update(re.findall(r" ?[A-Za-z]+", path.read_text(encoding="utf-8")))
    tokens = {word: bpe.byte_level_token(word.encode()) for word, count in words.items() if count >= 2}
    lost = {word for word, token in tokens.items() if token in tokenizer.vocab and token not in closed}
    assert len(tokens) > 10_000 and lost == set()


@pytest.mark.assets
def test_reference_lists_can_be_read_and_fit_no_other_tokenizer() -> None:
    folder = ASSETS / "reference_lists"
    tokenizer = real_tokenizer("qwen2.5-instruct")
    kept, _ = read_keep([folder], token_bytes=tokenizer.token_bytes)
    assert len(kept) == 100_959
    with pytest.raises(UserError, match="a kept list of another tokenizer"):
        read_keep([folder], token_bytes=real_tokenizer("llama-3.2-instruct").token_bytes)
