"""extend_vocab with syllables: the theorem of vocabkit/tokenizer/bpe.py on random merges, every family,
every file.
"""

import json
import random
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import build
import numpy as np
import pytest
import sentencepiece
from build import load, stored
from extending import TEXTS, WORDS, merges_for, write_list
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ROOT, SENTENCES, Folder, draw_text, open_folder, trim_files
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import model_edit
from vocabkit.edit.extend import extend_vocab
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.tokenizer import bpe, spm
from vocabkit.tokenizer.bpe import unfold
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.verify.edited import open_edited
from vocabkit.verify.ladder import verify_edit
from vocabkit.verify.tokenizer import check_tokenizer
from vocabkit.vocab.new_tokens import check_pieces, check_syllables, make_merges, make_tokens
from vocabkit.vocab.plan import NewMerge, extend_plan
from vocabkit.vocab.word_list import read_list, read_words

FAMILIES = [("qwen2", True), ("qwen2", False), ("llama", False), ("gemma2", True), ("gpt2", True)]


# The theorem


def draw_merges(
    pick: Callable[[list[Any]], Any], folder: Folder, texts: list[str], *, count: int
) -> list[bpe.Merge]:
    """Draw merges, one after another, of neighbours in words as the merges before leave them."""
    words = [
        piece for text in texts for piece, _ in folder.encoder.pre_tokenizer.pre_tokenize_str(
            folder.encoder.normalizer.normalize_str(text) if folder.encoder.normalizer else text
        )
    ]  # fmt: skip
    tokens = [[piece.value for piece in folder.encoder.model.tokenize(word)] for word in dict.fromkeys(words)]
    merges: list[bpe.Merge] = []
    for _ in range(count):
        known = folder.tokenizer.vocab.keys() | folder.tokenizer.added.keys() | set(map("".join, merges))
        pairs = sorted(
            {
                pair
                for word in tokens
                for pair in zip(word, word[1:], strict=False)
                if "".join(pair) not in known and not set("<\n") & set("".join(pair))
            }
        )
        if not pairs:
            break
        left, right = pick(pairs)
        merges.append((left, right))
        for word in tokens:
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == (left, right):
                    word[at : at + 2] = [left + right]
                at += 1
    return merges


def extended(folder: Folder, merges: list[NewMerge]) -> tuple[Tokenizer, bytes | None]:
    plan = extend_plan(folder.tokenizer, [], keep_out=False, new_merges=merges)
    data = folder.tokenizer.trimmed(plan.new_to_old, [], plan.merges)
    model = None
    for file in folder.spm_models.values():
        made = [merge.token for merge in merges]
        model = spm.select_pieces(file, list(range(len(file.pieces))), merged=made)
    return Tokenizer.from_str(json.dumps(data)), model


def check_continuing(
    folder: Folder, merges: list[NewMerge], after: Tokenizer, texts: list[str], model: bytes | None = None
) -> int:
    """Assert the theorem on texts; return how many hold a new token."""
    replaces = {after.token_to_id(merge.token): merge.replaces for merge in merges}
    assert sorted(replaces) == list(range(len(folder.tokenizer.tokens), after.get_vocab_size()))
    joined = 0
    for text in texts:
        old = folder.encode(text)
        new = after.encode(text, add_special_tokens=False).ids
        assert unfold(new, replaces) == old, text
        joined += new != old
        neighbours = {(old[at], old[at + 1]) for at in range(len(old) - 1)}
        if not any(
            merge.replaces[at : at + 2] in neighbours for merge in merges for at in range(len(merge.replaces))
        ):
            assert new == old
        decoded = folder.encoder.decode(old, skip_special_tokens=False)
        assert after.decode(new, skip_special_tokens=False) == decoded
        if model is not None and "\t" not in text:
            processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            if sentencepiece.SentencePieceProcessor(
                model_proto=next(iter(folder.spm_models.values())).SerializeToString()
            ).encode(text) == old:  # fmt: skip
                assert processor.encode(text) == new, text
    return joined


@pytest.mark.parametrize("kind", ["qwen", "llama3", "gemma"])
@settings(max_examples=min(25, settings().max_examples))
@given(data=st.data())
def test_new_merges_only_join_tokens(data, kind, tiny):
    """Any merges of neighbours, whole syllables or not, on any text; also what a file cannot hold as text."""
    folder = tiny(kind)
    texts = [draw_text(data, TEXTS) for _ in range(4)] + data.draw(
        st.lists(st.sampled_from(TEXTS), max_size=2)
    )
    drawn = draw_merges(
        lambda pairs: data.draw(st.sampled_from(pairs)), folder, [*texts, TEXTS[0]],
        count=data.draw(st.integers(1, 12)),
    )  # fmt: skip
    merges = make_merges(drawn, folder.tokenizer, folder.encoder, file=Path("list"))
    after, model = extended(folder, merges)
    for file in folder.spm_models.values():
        try:
            check_pieces(merges, file, path=Path("tokenizer.model"))
        except UserError:  # a piece that is never made by itself; see below
            return
    assert check_continuing(folder, merges, after, texts + [TEXTS[0]], model) > 0


@pytest.mark.assets
@pytest.mark.parametrize("name", ["qwen2.5-instruct", "llama-3.2-instruct", "gemma-2-it"])
def test_real_tokenizers(name, real, documents):
    folder, draw = real(name), random.Random(3)
    texts = [unicodedata.normalize("NFC", text) for text in documents[:200]]
    drawn = draw_merges(draw.choice, folder, texts[70:90], count=40)
    merges = make_merges(drawn, folder.tokenizer, folder.encoder, file=Path("list"))
    after, model = extended(folder, merges)
    for file in folder.spm_models.values():
        check_pieces(merges, file, path=Path("tokenizer.model"))
    assert check_continuing(folder, merges, after, texts, None) > 5
    check_syllables(merges, folder.tokenizer, before=folder.encoder, after=after, spm_model=model)


@pytest.mark.assets
def test_qwen_keeps_the_ids_of_its_added_tokens(real, tmp_path):
    """151,643 tokens, 22 added ones, then 512 syllables and 1,024 words, in transformers too."""
    folder, bundled = real("qwen2.5-instruct"), ROOT / "data" / "vi_words_chosen.jsonl"
    merges = make_merges(read_list(bundled).merges[:512], folder.tokenizer, folder.encoder, file=bundled)
    words = make_tokens(read_words(bundled, count=1024), folder.tokenizer, folder.encoder)
    plan = extend_plan(folder.tokenizer, words, keep_out=False, new_merges=merges)
    trim_files(folder, tmp_path / "out", plan)
    old, new = (AutoTokenizer.from_pretrained(path) for path in (folder.path, tmp_path / "out"))
    assert len(new) == 151_665 + 512 + 1024
    for token, at in folder.tokenizer.added.items():
        assert new.convert_tokens_to_ids(token) == at >= 151_643
    for at, merge in enumerate(merges):
        assert new.convert_tokens_to_ids(merge.token) == 151_665 + at
    for at, word in enumerate(words):
        assert new(word.content).input_ids == [151_665 + 512 + at]
    chat = [{"role": "user", "content": "Tôi nói theo cách quan trọng nhất, trong thời gian này."}]
    text = new.apply_chat_template(chat, tokenize=False)
    assert text == old.apply_chat_template(chat, tokenize=False)
    ids = new(text).input_ids
    assert new.decode(ids) == text and set(range(151_665, 151_667)) <= set(ids)
    frame = [token_id for token_id in old(text).input_ids if token_id >= 151_643]
    assert [token_id for token_id in ids if 151_643 <= token_id < 151_665] == frame


def test_added_tokens_would_move_if_vocab_lacked_them(tiny):
    """Why extended_vocab() puts old added tokens into the vocabulary: the library numbers them itself."""
    folder = tiny("qwen")
    (merge,) = merges_for(folder.path, 1)
    ids = list(folder.tokenizer.tokens)
    data = folder.tokenizer.trimmed(ids, [], [merge])
    wanted = {entry["content"]: entry["id"] for entry in data["added_tokens"]}
    right = Tokenizer.from_str(json.dumps(data))
    assert {token: right.token_to_id(token) for token in wanted} == wanted
    for token in wanted:
        del data["model"]["vocab"][token]
    wrong = Tokenizer.from_str(json.dumps(data))
    assert all(wrong.token_to_id(token) != at for token, at in wanted.items())


def test_a_piece_that_a_new_one_would_revive_is_refused():
    """ "abc" is a piece that scores never make: "bc" goes first and nothing joins "a" and "bc" but "abc"
    itself, whose score is below ... here none: its parts "ab" + "c" need "ab", which is new.
    """
    from tiny import model_of

    pieces = [("<unk>", 0.0, 2), ("a", -1.0, 1), ("b", -2.0, 1), ("c", -3.0, 1), ("abc", -4.0, 1)]
    model = model_of(pieces)
    assert bpe.derivation("abc", bpe.spm_ranks(spm.normal_scores(model))) == []
    check_pieces([NewMerge("b", "b", (2, 2))], model, path=Path("tokenizer.model"))
    with pytest.raises(UserError, match="tokenizer.model could make 'abc' out of a new syllable"):
        check_pieces([NewMerge("a", "b", (1, 2))], model, path=Path("tokenizer.model"))
    extended_model = spm.select_pieces(model, list(range(5)), merged=["ab"])
    processor = sentencepiece.SentencePieceProcessor(model_proto=extended_model)
    assert processor.encode("abc", out_type=str) == ["abc"], "it really happens"


# The whole edit, every family


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda c: f"{c[0]}-{'tied' if c[1] else 'untied'}")
def folders(request, tmp_path_factory) -> tuple[Path, Path, list[bpe.Merge]]:
    """A trimmed folder, the same extended by words and syllables, and the merges."""
    family, tied = request.param
    work = tmp_path_factory.mktemp(family)
    how = {"n_positions": 320} if family == "gpt2" else {}
    base = build.make_checkpoint(work / "base", family, tied=tied, **how)
    trim_vocab(base, work / "trimmed")
    merges = merges_for(work / "trimmed", 6)
    assert len(merges) == 6
    file = write_list(work / "list.jsonl", merges)
    extend_vocab(work / "trimmed", work / "out", words=file, syllables=6, init="weighted")
    return work / "trimmed", work / "out", merges


def test_ids_follow_and_syllables_come_before_words(folders):
    source, out, merges = folders
    record, n_old = read_json(out / "vocab_edit.json"), len(read_tokenizer_json(source).tokens)
    tokenizer = read_tokenizer_json(out)
    made = ["".join(merge) for merge in merges] + [" " + word.replace("▁", " ") for word in WORDS]
    assert [tokenizer.tokens[at] for at in range(n_old, record["n_tokens"])] == made
    assert record["new_to_old"] == [*range(n_old), *[None] * 10] and record["words"] == WORDS
    assert [row["merge"] for row in record["syllables"]] == [list(merge) for merge in merges]
    old = load_encoder(source)
    for token, replaced in zip(made[:6], record["replaces"][:6], strict=True):
        assert [piece.id for piece in old.model.tokenize(token)] == replaced
    for content, replaced in zip(made[6:], record["replaces"][6:], strict=True):
        assert old.encode(content, add_special_tokens=False).ids == replaced
    assert tokenizer.merges[-6:] == merges and len(tokenizer.merges) == 6 + len(
        read_tokenizer_json(source).merges
    )
    forms = [type(merge) for merge in tokenizer.data["model"]["merges"]]
    assert len(set(forms)) == 1, "written in the form found"


def test_transformers_and_tokenizers_agree(folders):
    source, out, merges = folders
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (source, out))
    encoder, record = load_encoder(out), read_json(out / "vocab_edit.json")
    assert len(new) == len(old) + 10
    for token, at in read_tokenizer_json(source).added.items():
        assert new.convert_tokens_to_ids(token) == at
    first = record["n_tokens"] - 10
    seen = set()
    for text in [*TEXTS, *(f"x {t} y" for t in TEXTS)]:
        ids = new(text, add_special_tokens=False).input_ids
        assert ids == encoder.encode(text, add_special_tokens=False).ids
        assert new.decode(ids) == old.decode(old(text, add_special_tokens=False).input_ids)
        seen |= {token_id - first for token_id in ids}
    assert set(range(6)) <= seen, "every new merge is met"


def test_rows_of_syllables_are_made_of_their_old_tokens(folders):
    source, out, _ = folders
    before, after = load(source), load(out)
    record = read_json(out / "vocab_edit.json")
    n_old, tied = record["n_tokens"] - 10, read_json(out / "config.json")["tie_word_embeddings"]
    for ends in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(model, ends)().weight.detach().numpy() for model in (before, after))
        norms = np.linalg.norm(old[:n_old], axis=1)
        for at, replaced in enumerate(record["replaces"]):
            order = replaced if tied or ends == "get_input_embeddings" else replaced[::-1]
            weights = np.exp(2.0 * np.arange(len(order)))
            wanted = weights / weights.sum() @ old[order]
            wanted *= np.clip(np.linalg.norm(wanted), norms.min(), norms.max()) / np.linalg.norm(wanted)
            np.testing.assert_allclose(new[n_old + at], wanted, rtol=1e-4, atol=1e-6)


def test_the_ladder_is_clean(folders, capsys):
    source, out, _ = folders
    texts = out.parent / "texts.txt"
    texts.write_text("\n".join([*TEXTS, *SENTENCES]), encoding="utf-8")
    assert verify_edit(source, out, texts=[texts])
    report = read_json(out / "verify_report.json")
    numbers = {name: value for check in report["checks"] for name, value in check["numbers"].items()}
    assert numbers["joined"] > 0 and numbers["joined_differences"] == numbers["mismatches"] == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "4 Vietnamese words and 6 Vietnamese syllables" in card and "6 âm tiết tiếng Việt" in card


def test_files_agree(folders):
    source, out, merges = folders
    tokenizer = read_tokenizer_json(out)
    if (source / "vocab.json").exists():
        assert read_json(out / "vocab.json") == tokenizer.data["model"]["vocab"]
        lines = (out / "merges.txt").read_text(encoding="utf-8").split("\n")
        assert lines[-7:] == [*(" ".join(merge) for merge in merges), ""]
    for name, model in open_folder(source).spm_models.items():
        pieces = list(spm.read_spm(out / name).pieces)
        added = pieces[len(model.pieces) :]
        assert [piece.piece for piece in added[:6]] == ["".join(merge) for merge in merges]
        assert {piece.type for piece in added[:6]} == {spm.NORMAL}
        scores = [piece.score for piece in added[:6]]
        assert max(scores) < min(spm.normal_scores(model).values()) and scores == sorted(scores)[::-1]
        processor = sentencepiece.SentencePieceProcessor(model_file=str(out / name))
        encoder = load_encoder(out)
        for text in TEXTS:
            assert processor.encode(text) == encoder.encode(text, add_special_tokens=False).ids


def test_what_is_wrong_is_found(folders, tmp_path):
    """A merge that comes before the old ones; a record of other ids; one of fewer syllables."""
    source, out, merges = folders
    broken = Path(shutil.copytree(out, tmp_path / "out"))
    data = read_json(broken / "tokenizer.json")
    last = data["model"]["merges"].pop()
    data["model"]["merges"].insert(0, last)
    write_json(broken / "tokenizer.json", data)
    edited = open_edited(source, broken)
    check = check_tokenizer(edited, TEXTS)
    assert "new token: the last 6 merges are not those of vocab_edit.json" in check.findings
    record = read_json(out / "vocab_edit.json")
    record["replaces"][0] = record["replaces"][0][::-1]
    write_json(broken / "vocab_edit.json", record)
    shutil.copy(out / "tokenizer.json", broken / "tokenizer.json")
    check = check_tokenizer(open_edited(source, broken), TEXTS)
    assert any(finding.startswith("joins other tokens: ") for finding in check.findings)
    record["syllables"].pop()
    write_json(broken / "vocab_edit.json", record)
    with pytest.raises(UserError, match="names 4 words and 5 syllables, but 10 tokens are new"):
        _ = open_edited(source, broken).added


def test_extending_again_and_trimming_afterwards(tmp_path):
    base = build.make_checkpoint(tmp_path / "base", "qwen2")
    merges = merges_for(base, 6)
    file = write_list(tmp_path / "a.jsonl", merges)
    extend_vocab(base, tmp_path / "one", words=file, num_words=2, syllables=3)
    rest = write_list(tmp_path / "b.jsonl", merges[3:], WORDS[2:])
    extend_vocab(tmp_path / "one", tmp_path / "two", words=rest, syllables=3)
    assert verify_edit(tmp_path / "one", tmp_path / "two")
    extend_vocab(base, tmp_path / "both", words=file, syllables=6)
    for text in TEXTS:
        found = [
            load_encoder(tmp_path / name).encode(text, add_special_tokens=False).tokens
            for name in ("two", "both")
        ]
        assert found[0] == found[1]
    with pytest.raises(UserError, match="already is a token of .*; choose syllables for this tokenizer"):
        extend_vocab(tmp_path / "one", tmp_path / "again", words=file, num_words=0, syllables=3)
    trim_vocab(tmp_path / "two", tmp_path / "trimmed")
    assert verify_edit(tmp_path / "two", tmp_path / "trimmed")


@pytest.mark.parametrize("init", ["zeros", "random", "first_last", "english", "neighbours"])
def test_inits_work_on_parts_of_characters(tmp_path, init):
    """A merge of two bytes that are no character alone: its rows come from its old tokens all the same."""
    base = build.make_checkpoint(tmp_path / "base", "llama", tied=False)
    tokenizer = read_tokenizer_json(base)
    left, right = (bpe.byte_level_token(bytes([byte])) for byte in (0xE1, 0xBD))
    assert left + right not in tokenizer.vocab
    file = write_list(tmp_path / "list.jsonl", [(left, right)])
    dictionary = tmp_path / "pairs.tsv"
    dictionary.write_text("weather\thôm nay\n", encoding="utf-8")
    how = {"dictionary": dictionary} if init == "english" else {}
    extend_vocab(base, tmp_path / "out", words=file, num_words=1, syllables=1, init=init, **how)
    record = read_json(tmp_path / "out" / "vocab_edit.json")
    assert record["syllables"] == [{"syllable": "<0xE1><0xBD>", "merge": [left, right]}]
    replaced = [tokenizer.vocab[left], tokenizer.vocab[right]]
    assert record["replaces"][0] == replaced
    old, new = (stored(folder)["model.embed_tokens.weight"] for folder in (base, tmp_path / "out"))
    n_old = len(tokenizer.tokens)
    if init in ("english", "first_last"):
        wanted = old[replaced].mean(0) if init == "english" else old[replaced[1]]
        norms = old[:n_old].norm(dim=1)
        wanted = wanted * (wanted.norm().clamp(norms.min(), norms.max()) / wanted.norm())
        np.testing.assert_allclose(new[n_old], wanted, rtol=1e-5, atol=1e-6)
    assert verify_edit(base, tmp_path / "out")
    encoder = load_encoder(tmp_path / "out")
    assert encoder.decode(encoder.encode("ệ ὀ ữ").ids) == "ệ ὀ ữ"


# Lists and tokenizers that cannot be taken


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory) -> Path:
    return build.make_checkpoint(tmp_path_factory.mktemp("qwen2") / "base", "qwen2")


@pytest.mark.parametrize(
    "rows, count, expected",
    [
        ([("ĠT", "h")], 2, "--syllables is 2, {} has 1 syllables; give at most as many"),
        ([], -1, "--syllables is -1, expected 0 or more"),
        ([None], 1, '{}:5 has no "merge" of two tokens'),
        ([("x", "q"), ("xq", "z"), ("x", "q")], 3, "{}:7 has 'xq', as line 5 does"),
        ([("xq", "z")], 1, "{}: 'xqz' is not made of 'xq' and 'z' by"),
        ([("ờ", "z")], 1, "{}: 'ờz' is not made of 'ờ' and 'z' by"),
        ([("Ġ", "t")], 1, "{}: ' t' already is a token of"),
    ],
)
def test_lists_that_cannot_be_taken(qwen2, tmp_path, rows, count, expected):
    vocab = read_tokenizer_json(qwen2).vocab
    assert "Ġt" in vocab
    file = write_list(tmp_path / "list.jsonl", [])
    text = "".join(json.dumps({"syllable": "?"} | ({"merge": row} if row else {})) + "\n" for row in rows)
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        extend_vocab(qwen2, tmp_path / "out", words=file, syllables=count)
    assert expected.format(file) in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["list.jsonl"]


def test_a_merge_of_another_tokenizer(qwen2):
    """Its two parts are tokens, but its string is cut elsewhere."""
    folder = open_folder(qwen2)
    crossing = [("x", "z"), ("q", "x"), ("qx", "z")]  # "qxz" is "q" + "xz" by the first of these
    make_merges(crossing[:2], folder.tokenizer, folder.encoder, file=Path("list"))
    with pytest.raises(UserError, match="it was chosen for another tokenizer"):
        make_merges(crossing, folder.tokenizer, folder.encoder, file=Path("list"))


def test_a_word_that_is_a_syllable_too_is_left_out(qwen2, tmp_path, capsys):
    merges = merges_for(qwen2, 6)
    text = next(t for t in map("".join, merges) if t.startswith("Ġ") and t[1:].isascii())
    file = write_list(tmp_path / "list.jsonl", merges, [text[1:]])
    extend_vocab(qwen2, tmp_path / "out", words=file, syllables=6, init="mean")
    said = capsys.readouterr().out
    assert f"has ' {text[1:]}' as a word and as a syllable" in said and "left out: 1 of 7 rows" in said
    record = read_json(tmp_path / "out" / "vocab_edit.json")
    assert len(record["syllables"]) == 6


@pytest.mark.parametrize("family", ["t5"])
def test_unigram_is_refused(tmp_path, family):
    base = build.make_checkpoint(tmp_path / "base", family)
    file = write_list(tmp_path / "list.jsonl", [("a", "b")], [])
    with pytest.raises(UserError, match="is Unigram, which has no merges to continue"):
        extend_vocab(base, tmp_path / "out", words=file, num_words=0, syllables=1)


def test_a_tokenizer_that_would_join_others_is_refused(tiny):
    folder = tiny("qwen")
    merges = make_merges(merges_for(folder.path, 2), folder.tokenizer, folder.encoder, file=Path("list"))
    after, _ = extended(folder, merges[:1])
    with pytest.raises(UserError, match="that are not its .* old ones joined"):
        check_syllables(merges, folder.tokenizer, before=folder.encoder, after=after, spm_model=None)
    folder = tiny("gemma")
    merges = make_merges(merges_for(folder.path, 2), folder.tokenizer, folder.encoder, file=Path("list"))
    after, _ = extended(folder, merges)
    (model,) = folder.spm_models.values()
    with pytest.raises(UserError, match="and the SentencePiece model beside it would cut"):
        check_syllables(
            merges, folder.tokenizer, before=folder.encoder, after=after, spm_model=model.SerializeToString()
        )


# The script


def test_syllables_alone_and_dry_run_on_the_command_line(qwen2, tmp_path, capsys):
    file = write_list(tmp_path / "list.jsonl", merges_for(qwen2, 4))
    argv = ["-m", str(qwen2), "-t", "extend_vocab", "--words", str(file), "--syllables", "4"]
    out = tmp_path / "out"
    assert model_edit.main([*argv, "-o", str(out), "--num_words", "2", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    n_old = len(read_tokenizer_json(qwen2).tokens)
    assert f"{n_old:,} →" in printed and f"→ {n_old + 6:>13,}" in printed
    assert "syllables             4 of" in printed and "words                 2 of" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["list.jsonl"]
    assert model_edit.main([*argv, "-o", str(out), "--num_words", "0"]) == 0
    record = read_json(out / "vocab_edit.json")
    assert record["words"] == [] and len(record["syllables"]) == 4
    assert record["n_tokens"] == n_old + 4
    assert verify_edit(qwen2, out)
    assert "4 Vietnamese syllables as tokens" in (out / "README.md").read_text(encoding="utf-8")


def test_one_bad_row_does_not_cost_the_list(tiny):
    """It is left out, with what builds on it, and said; a list of bad rows alone is refused."""
    folder = tiny("qwen")
    good = merges_for(folder.path, 3)
    bad = [good[0], ("nowhere", "x"), ("nowherex", "y")]
    left_out: list[str] = []
    made = make_merges(
        [*good, *bad], folder.tokenizer, folder.encoder, file=Path("w.jsonl"), left_out=left_out
    )
    assert [(merge.left, merge.right) for merge in made] == good
    assert len(left_out) == 3 and "already is a token" in left_out[0] and "is not made of" in left_out[1]
    with pytest.raises(UserError, match="is not made of"):
        make_merges(bad[1:], folder.tokenizer, folder.encoder, file=Path("w.jsonl"), left_out=[])
