"""The real llama.cpp makes of exported and trimmed files the ids, logits and answers of transformers."""

import contextlib
import os
import shutil
from pathlib import Path

import build
import numpy as np
import pytest
import torch
from exporting import FAMILIES, TEXTS, split_in_two
from extending import TEXTS as SYLLABLES
from extending import WORDS, merges_for, write_list
from transformers import AutoConfig, AutoModelForCausalLM

from vocabkit.edit.extend import extend_vocab
from vocabkit.edit.trim import trim_vocab
from vocabkit.files import read_json
from vocabkit.gguf.export import export_gguf
from vocabkit.gguf.files import read_gguf
from vocabkit.gguf.model import NEW_TO_OLD, open_gguf
from vocabkit.gguf.trim import trim_gguf
from vocabkit.gguf.verify import verify_gguf
from vocabkit.gguf.vocab import GGML, NORMAL, USER_DEFINED
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.encoder import load_encoder

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="no llama-cpp-python: pip install llama-cpp-python (test.sh builds it)"
)
pytestmark = pytest.mark.slow

F32 = 0  # enum ggml_type, for the cache of keys and values: float16 would round them

# ggml looks GELU up in a table of float16 (ggml-cpu/vec.h); SiLU is computed
TOLERANCE = {"gemma2": 5e-3}

SYLLABLE_TEXTS = [*SYLLABLES, *(f"A {word}, {word}.".replace("▁", " ") for word in WORDS)]


def open_llama(path: Path, **options):
    """Open a file without llama.cpp's pages of messages."""
    return llama_cpp.Llama(
        str(path), n_ctx=256, logits_all=True, type_k=F32, type_v=F32, n_threads=1, verbose=False, **options
    )


def logits(path: Path, ids: list[int]) -> np.ndarray:
    model = open_llama(path)
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def reference(folder: Path, ids: list[int]) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].numpy()


def greedy(path: Path, ids: list[int], count: int) -> list[int]:
    model = open_llama(path)
    made = []
    for token_id in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        made.append(token_id)
        if len(made) == count:
            return made
    return made


def assert_same_model(folder: Path, gguf: Path, texts: list[str], *, tolerance: float) -> None:
    """Ids of all texts, logits and greedy answers of the first: equal in llama.cpp and in transformers."""
    encoder, model = load_encoder(folder), open_llama(gguf)
    for text in texts:
        assert model.tokenize(text.encode(), add_bos=True, special=True) == encoder.encode(text).ids, text
        ids = encoder.encode(text, add_special_tokens=False).ids
        assert model.detokenize(ids, special=True).decode() == text
    ids = encoder.encode(texts[0]).ids[:48]
    expected = reference(folder, ids)
    found = logits(gguf, ids)
    assert np.abs(found - expected[:, : found.shape[1]]).max() <= tolerance


@pytest.mark.parametrize("name", ["base", "trimmed", "extended"])
def test_llama_cpp_computes_what_transformers_computes(exported, name):
    place, family = exported
    assert_same_model(place / name, place / f"{name}.gguf", TEXTS, tolerance=TOLERANCE.get(family, 1e-3))


@pytest.mark.parametrize("name", ["trimmed", "extended"])
def test_greedy_answers_are_those_of_transformers(exported, name):
    place, family = exported
    if family == "gemma2":
        pytest.skip("ggml's GELU is a table: of two answers as good as equal, a random model takes the other")
    ids = load_encoder(place / name).encode(TEXTS[1]).ids[:16]
    model = AutoModelForCausalLM.from_pretrained(place / name, dtype=torch.float32).eval()
    suppressed = list(range(len(open_gguf(place / f"{name}.gguf").types), model.config.vocab_size))
    made = model.generate(
        torch.tensor([ids]),
        max_new_tokens=64,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        suppress_tokens=suppressed or None,
    )
    assert greedy(place / f"{name}.gguf", ids, 64) == made[0, len(ids) :].tolist()


def test_new_words_are_user_defined_and_printed(exported):
    place, _ = exported
    model = open_gguf(place / "extended.gguf")
    words = {" xin chào": None, " cảm ơn": None}
    for token_id, token in model.tokenizer.tokens.items():
        if token in words:
            assert model.types[token_id] == USER_DEFINED
            words[token] = token_id
    llama = open_llama(place / "extended.gguf")
    ids = llama.tokenize("Tôi xin chào bạn".encode(), add_bos=False)
    assert words[" xin chào"] in ids
    assert llama.detokenize(ids).decode().strip() == "Tôi xin chào bạn"


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_syllables_and_words_get_the_ids_of_the_folder(tmp_path, family):
    """New merges come after the old ones and new pieces score below the old ones: llama.cpp must see both."""
    changes = FAMILIES[family, True]
    trim_vocab(build.make_checkpoint(tmp_path / "base", family, **changes), tmp_path / "trimmed")
    merges = merges_for(tmp_path / "trimmed", 6)
    words = write_list(tmp_path / "list.jsonl", merges)
    extend_vocab(tmp_path / "trimmed", tmp_path / "out", words=words, syllables=6, init="mean")
    export_gguf(tmp_path / "out", tmp_path / "out.gguf", outtype="f32")
    model, encoder = open_gguf(tmp_path / "out.gguf"), load_encoder(tmp_path / "out")
    new = [encoder.token_to_id("".join(merge)) for merge in merges]
    assert [model.types[token_id] for token_id in new] == [NORMAL] * 6
    if family == "gemma2":
        scores = model.value(GGML + "scores")
        assert [scores[at] for at in new] == sorted((scores[at] for at in new), reverse=True)
        old = [score for at, score in enumerate(scores[: min(new)]) if model.types[at] == NORMAL]
        assert scores[new[0]] < min(old)
    else:
        assert model.value(GGML + "merges")[-6:] == [" ".join(merge) for merge in merges]
    seen = {at for text in SYLLABLE_TEXTS for at in encoder.encode(nfc(text)).ids}
    assert set(range(min(new), min(new) + 10)) <= seen, "every new syllable and word is met"
    texts = [nfc(text) for text in (*SYLLABLE_TEXTS, *TEXTS)]
    assert_same_model(tmp_path / "out", tmp_path / "out.gguf", texts, tolerance=TOLERANCE.get(family, 1e-3))
    trim_gguf(tmp_path / "out.gguf", tmp_path / "again.gguf")
    again = open_llama(tmp_path / "again.gguf", vocab_only=True)
    new_to_old = open_gguf(tmp_path / "again.gguf").value(NEW_TO_OLD)
    for text in map(nfc, SYLLABLE_TEXTS):
        ids = again.tokenize(text.encode(), add_bos=True, special=True)
        assert [new_to_old[token_id] for token_id in ids] == encoder.encode(text).ids


def test_kept_tokens_have_the_same_logits_bit_for_bit(trimmed_file):
    place, _, out = trimmed_file
    new_to_old = open_gguf(out).value(NEW_TO_OLD)
    old_to_new = {old: new for new, old in enumerate(new_to_old)}
    ids = load_encoder(place / "base").encode(TEXTS[0]).ids[:32]
    assert old_to_new.keys() >= set(ids)
    before, after = logits(place / "base.gguf", ids), logits(out, [old_to_new[i] for i in ids])
    assert np.array_equal(before[:, new_to_old], after)


@pytest.mark.parametrize("ftype", [7, 15, 2, 10], ids=["q8_0", "q4_k_m", "q4_0", "q2_k"])
def test_quantized_rows_move_without_being_unpacked(tmp_path, ftype):
    """Rows of 256 values, so that every type has its own blocks."""
    import ctypes

    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "head_dim": 64}
    base = build.make_checkpoint(tmp_path / "base", "qwen2", tied=False, **sizes)
    export_gguf(base, tmp_path / "f32.gguf", outtype="f32")
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.nthread = ftype, 1
    quantized = tmp_path / "q.gguf"
    with quiet():
        names = (str(tmp_path / "f32.gguf").encode(), str(quantized).encode())
        assert llama_cpp.llama_model_quantize(*names, ctypes.byref(options)) == 0
    trim_gguf(quantized, tmp_path / "trimmed.gguf")
    new_to_old = open_gguf(tmp_path / "trimmed.gguf").value(NEW_TO_OLD)
    old_to_new = {old: new for new, old in enumerate(new_to_old)}
    ids = load_encoder(base).encode(TEXTS[0]).ids[:32]
    before, after = logits(quantized, ids), logits(tmp_path / "trimmed.gguf", [old_to_new[i] for i in ids])
    assert np.array_equal(before[:, new_to_old], after)
    assert verify_gguf(quantized, tmp_path / "trimmed.gguf")


@contextlib.contextmanager
def quiet():
    """Keep llama.cpp's messages, which go around Python, from the tests' output."""
    with open(os.devnull, "w") as null:
        saved = [os.dup(1), os.dup(2)]
        os.dup2(null.fileno(), 1), os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved[0], 1), os.dup2(saved[1], 2)


def test_parts_answer_as_the_whole(export_family, tmp_path):
    whole = export_family("qwen2", True) / "base.gguf"
    trim_gguf(split_in_two(whole, tmp_path / "m"))
    trim_gguf(whole, tmp_path / "whole.gguf")
    ids = list(range(3, 20))
    parts = tmp_path / "m__trimm_vocab-00001-of-00002.gguf"
    assert np.array_equal(logits(parts, ids), logits(tmp_path / "whole.gguf", ids))


@pytest.mark.parametrize("outtype", ["bf16", "f16", "q8_0"])
def test_every_type_of_numbers_runs(tmp_path, small, outtype):
    export_gguf(small / "base", tmp_path / "x.gguf", outtype=outtype)
    ids = load_encoder(small / "base").encode(TEXTS[0]).ids[:8]
    assert np.isfinite(logits(tmp_path / "x.gguf", ids)).all()


@pytest.mark.assets
@pytest.mark.parametrize("name", ["stories260K", "envizh-lm"])
def test_real_models(request, assets, tmp_path, documents, name):
    is_whole = name == "stories260K"
    folder = assets / "models" / name if is_whole else request.getfixturevalue("envizh")
    export_gguf(folder, tmp_path / "x.gguf", outtype="f32")
    texts = [nfc(text) for text in documents]
    encoder, model = load_encoder(folder), open_llama(tmp_path / "x.gguf")
    for text in texts:
        assert model.tokenize(text.encode(), add_bos=True, special=True) == encoder.encode(text).ids
    ids = encoder.encode(texts[0]).ids[:100]
    assert (
        np.abs(logits(tmp_path / "x.gguf", ids) - reference(folder, ids)[:, : model.n_vocab()]).max() <= 1e-3
    )
    ids = ids[:20]
    torch_model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    options = {"max_new_tokens": 64, "do_sample": False, "eos_token_id": None, "repetition_penalty": 1.0}
    made = torch_model.generate(torch.tensor([ids]), pad_token_id=0, **options)[0, len(ids) :].tolist()
    assert greedy(tmp_path / "x.gguf", ids, 64) == made


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "family"),
    [("qwen3", "qwen3"), ("llama-3.2-instruct", "llama"), ("gemma-2-it", "gemma2")],
)
def test_real_tokenizers_give_the_same_ids_in_llama_cpp(assets, documents, tmp_path, name, family):
    """Of a model of one layer with the real rows; the same texts after trimming the file."""
    source, folder = assets / "tokenizers" / name, tmp_path / "base"
    shutil.copytree(source, folder)
    folder.chmod(0o755)
    encoder = load_encoder(source)
    rows = max(encoder.get_vocab(with_added_tokens=True).values()) + 1
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 32, "head_dim": 8, "max_position_embeddings": 64, "vocab_size": rows,
             "query_pre_attn_scalar": 8, "tie_word_embeddings": True}  # fmt: skip
    ids = {k: v for k, v in read_json(source / "config.json").items() if k.endswith("_token_id")}
    (folder / "config.json").unlink()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **ids)).save_pretrained(folder)
    export_gguf(folder, tmp_path / "x.gguf", outtype="f16")
    trim_gguf(tmp_path / "x.gguf", tmp_path / "y.gguf")
    old, new = (open_llama(tmp_path / f"{name}.gguf", vocab_only=True) for name in "xy")
    old_to_new = {at: i for i, at in enumerate(read_gguf(tmp_path / "y.gguf").fields[NEW_TO_OLD].value())}
    covered = 0
    for text in map(nfc, documents):
        expected = encoder.encode(text).ids
        assert old.tokenize(text.encode(), add_bos=True, special=True) == expected
        trimmed = new.tokenize(text.encode(), add_bos=True, special=True)
        if old_to_new.keys() >= set(expected):
            covered += 1
            assert trimmed == [old_to_new[token_id] for token_id in expected]
        assert old.detokenize(expected, special=True) == new.detokenize(trimmed, special=True)
    assert covered > 100
