"""GGUF: written from folders, trimmed directly, read by the real llama.cpp, refused where it is broken."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import build
import numpy as np
import pytest
import torch
from extending import TEXTS as SYLLABLES
from extending import WORDS, merges_for, write_list
from transformers import AutoModelForCausalLM

import model_edit
from vocabkit.edit.extend import extend_vocab
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.gguf import files
from vocabkit.gguf.export import export_gguf, hyperparameters, interleave, llama3_factors
from vocabkit.gguf.files import (
    INT32,
    STRING,
    UINT32,
    all_tensors,
    array,
    number,
    read_gguf,
    split_files,
    string,
    write_gguf,
)
from vocabkit.gguf.model import GGML, NEW_TO_OLD, open_gguf
from vocabkit.gguf.trim import default_out, trim_gguf
from vocabkit.gguf.verify import check_gguf, verify_gguf
from vocabkit.gguf.vocab import CONTROL, NORMAL, UNUSED, USER_DEFINED
from vocabkit.tasks import run_gguf_task
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.encoder import LLAMA3, load_encoder

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="no llama-cpp-python: pip install llama-cpp-python (test.sh builds it)"
)
F32 = 0  # enum ggml_type, for the cache of keys and values: float16 would round them
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
# family → settings; gemma2's scale must be what llama.cpp computes
FAMILIES = {
    ("qwen2", True): {},
    ("qwen2", False): {},
    ("qwen3", False): {"head_dim": 16},
    ("llama", False): {"rope_parameters": LLAMA3_ROPE},
    ("llama", True): {"attention_bias": True},
    ("gemma2", True): {"query_pre_attn_scalar": 8, "sliding_window": 16, "initializer_range": 0.1},
}
# ggml looks GELU up in a table of float16 (ggml-cpu/vec.h); SiLU is computed
TOLERANCE = {"gemma2": 5e-3}
TEXTS = [nfc(text) for text in build.COVERED + build.FOREIGN]
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


def split_as_llama3(folder: Path) -> None:
    """Give the tiny tokenizer Llama 3's expression, by which llama.cpp knows that merges may be ignored."""
    data = read_json(folder / "tokenizer.json")
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3
    write_json(folder / "tokenizer.json", data)


@pytest.fixture(
    scope="module", params=FAMILIES, ids=lambda case: f"{case[0]}-{'tied' if case[1] else 'untied'}"
)
def exported(request, tmp_path_factory):
    """A random model's folder, the folders trimmed and extended out of it, and a file of each."""
    family, tied = request.param
    place = tmp_path_factory.mktemp(family)
    changes = {"head_dim": None, **FAMILIES[request.param]} if family != "gemma2" else FAMILIES[request.param]
    if family in ("qwen2", "llama"):
        changes.pop("head_dim", None)
    base = build.make_checkpoint(place / "base", family, tied=tied, **changes)
    if family == "llama":
        split_as_llama3(base)
    trim_vocab(base, place / "trimmed")
    (place / "words.txt").write_text("xin chào\ncảm ơn\n", encoding="utf-8")
    extend_vocab(place / "trimmed", place / "extended", words=place / "words.txt", init="mean")
    for name in ("base", "trimmed", "extended"):
        export_gguf(place / name, place / f"{name}.gguf", outtype="f32")
    return place, family


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


def test_special_tokens_are_control_and_padding_rows_are_left_out(exported):
    place, _ = exported
    model = open_gguf(place / "trimmed.gguf")
    config = read_json(place / "trimmed" / "config.json")
    assert len(model.types) <= config["vocab_size"]
    assert UNUSED not in model.types
    for entry in read_json(place / "trimmed" / "tokenizer.json")["added_tokens"]:
        if entry["special"]:
            assert model.types[entry["id"]] in (CONTROL, 2)  # 2: Gemma's <unk>


def test_what_generate_suppresses_llama_cpp_is_told(exported):
    place, _ = exported
    listed = read_json(place / "trimmed" / "generation_config.json").get("suppress_tokens") or []
    model = open_gguf(place / "trimmed.gguf")
    expected = [token_id for token_id in listed if token_id < len(model.types)]
    assert (model.value("tokenizer.ggml.suppress_tokens") or []) == expected


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


# Trimming a file


@pytest.fixture(scope="module")
def trimmed_file(exported):
    place, family = exported
    out = place / "base__trimm_vocab.gguf"
    if not out.exists():
        trim_gguf(place / "base.gguf")
    return place, family, out


def test_a_trimmed_file_is_the_export_of_the_trimmed_folder(trimmed_file):
    """Same tokens, same types, same rows: whichever way one goes."""
    place, family, out = trimmed_file
    direct, detour = open_gguf(out), open_gguf(place / "trimmed.gguf")
    assert direct.value(GGML + "tokens") == detour.value(GGML + "tokens")
    assert direct.types == detour.types
    assert direct.value(GGML + "merges") == detour.value(GGML + "merges")
    for name, tensor in all_tensors(direct.parts).items():
        other = all_tensors(detour.parts)[name]
        assert (tensor.dims, tensor.type) == (other.dims, other.type)
        with tensor.file.open("rb") as one, other.file.open("rb") as two:
            one.seek(tensor.start), two.seek(other.start)
            assert one.read(tensor.size) == two.read(other.size), name


def test_kept_tokens_have_the_same_logits_bit_for_bit(trimmed_file):
    place, _, out = trimmed_file
    new_to_old = open_gguf(out).value(NEW_TO_OLD)
    old_to_new = {old: new for new, old in enumerate(new_to_old)}
    ids = load_encoder(place / "base").encode(TEXTS[0]).ids[:32]
    assert old_to_new.keys() >= set(ids)
    before, after = logits(place / "base.gguf", ids), logits(out, [old_to_new[i] for i in ids])
    assert np.array_equal(before[:, new_to_old], after)


def test_verify_edit_holds_and_finds_what_was_broken(trimmed_file, tmp_path):
    place, family, out = trimmed_file
    assert verify_gguf(place / "base.gguf", out)
    source = read_gguf(out)
    broken = tmp_path / "broken.gguf"
    data = bytearray(out.read_bytes())
    tensor = source.tensors["token_embd.weight"]
    data[tensor.start + 5] ^= 1
    broken.write_bytes(data)
    findings = [f for c in check_gguf(open_gguf(place / "base.gguf"), open_gguf(broken)) for f in c.findings]
    assert findings == ["token_embd.weight row differs: 0"]
    data[tensor.start + 5] ^= 1
    other = source.tensors["output_norm.weight"]
    data[other.start] ^= 1
    broken.write_bytes(data)
    assert not verify_gguf(place / "base.gguf", broken)


def test_each_changed_field_is_found(trimmed_file, tmp_path):
    place, _, out = trimmed_file
    source = read_gguf(out)
    tokens = source.fields[GGML + "tokens"].value()
    tokens[40], tokens[41] = tokens[41], tokens[40]
    changes = {
        GGML + "tokens": array(tokens, items=STRING),
        GGML + "eos_token_id": number(3, type=UINT32),
        "general.name": string("another"),
    }
    for key, field in changes.items():
        broken = tmp_path / f"{key}.gguf"
        write_gguf(source, broken, fields={**source.fields, key: field}, rows={})
        check = check_gguf(open_gguf(place / "base.gguf"), open_gguf(broken))[0]
        assert check.findings, key


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


def test_a_split_model(tmp_path, exported):
    """Parts as llama-gguf-split makes them: the fields in the first, each with numbers of its own."""
    place, _ = exported
    source = read_gguf(place / "base.gguf")
    names = list(source.tensors)
    for part, chosen in enumerate((names[:3], names[3:])):
        fields = (
            dict(source.fields)
            if part == 0
            else {"general.architecture": source.fields["general.architecture"]}
        )
        fields["split.no"] = number(part, type=2)
        fields["split.count"] = number(2, type=2)
        fields["split.tensors.count"] = number(len(names), type=5)
        file = files.replace(source, tensors={name: source.tensors[name] for name in chosen})
        write_gguf(file, tmp_path / f"m-{part + 1:05}-of-00002.gguf", fields=fields, rows={})
    first = tmp_path / "m-00001-of-00002.gguf"
    trim_gguf(first)
    out = tmp_path / "m__trimm_vocab-00001-of-00002.gguf"
    assert verify_gguf(first, out)
    trim_gguf(place / "base.gguf", tmp_path / "whole.gguf")
    ids = list(range(3, 20))
    assert np.array_equal(logits(out, ids), logits(tmp_path / "whole.gguf", ids))
    first.with_name("m-00002-of-00002.gguf").unlink()
    with pytest.raises(UserError, match="m-00002-of-00002.gguf is missing"):
        split_files(first)


def test_dry_run_writes_nothing(trimmed_file, tmp_path, capsys):
    place, _, _ = trimmed_file
    trim_gguf(place / "base.gguf", tmp_path / "out.gguf", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert "added by closure" in capsys.readouterr().out


def test_commands_of_the_readme(trimmed_file, tmp_path, capsys):
    place, _, _ = trimmed_file
    os.symlink(place / "base.gguf", tmp_path / "m.gguf")
    assert model_edit.main(["-m", str(tmp_path / "m.gguf"), "-t", "trimm_vocab"]) == 0
    out = tmp_path / "m__trimm_vocab.gguf"
    assert model_edit.main(["-b", str(tmp_path / "m.gguf"), "-m", str(out), "-t", "verify_edit"]) == 0
    assert "every check holds" in capsys.readouterr().out
    assert (
        model_edit.main(["-m", str(place / "trimmed"), "-t", "export_gguf", "-o", str(tmp_path / "x.gguf")])
        == 0
    )
    assert (tmp_path / "x.Modelfile").read_text().startswith("FROM ./x.gguf\n")


# Types of numbers


@pytest.mark.parametrize(("outtype", "bound"), [("bf16", 2**-8), ("f16", 2**-11), ("q8_0", 2**-7)])
def test_outtypes_round_as_they_should(tmp_path, outtype, bound):
    base = build.make_checkpoint(tmp_path / "base", "qwen2", tied=False)
    for kind in ("f32", outtype):
        export_gguf(base, tmp_path / f"{kind}.gguf", outtype=kind)
    import gguf

    exact, rounded = (gguf.GGUFReader(tmp_path / f"{kind}.gguf").tensors for kind in ("f32", outtype))
    for one, two in zip(exact, rounded, strict=True):
        assert one.name == two.name
        values = gguf.quants.dequantize(two.data, two.tensor_type)
        scale = np.abs(one.data).max(axis=-1, keepdims=True)
        assert (np.abs(values - one.data) <= scale * bound).all()
        if one.data.ndim == 1:
            assert two.tensor_type == gguf.GGMLQuantizationType.F32
    ids = load_encoder(base).encode(TEXTS[0]).ids[:8]
    assert np.isfinite(logits(tmp_path / f"{outtype}.gguf", ids)).all()


def test_without_outtype_the_checkpoints_own(tmp_path):
    base = build.make_checkpoint(tmp_path / "base", "qwen2", dtype="bfloat16")
    export_gguf(base, tmp_path / "own.gguf")
    import gguf

    assert (
        read_gguf(tmp_path / "own.gguf").tensors["token_embd.weight"].type == gguf.GGMLQuantizationType.BF16
    )


def test_interleaving_undoes_the_halves():
    rows = np.arange(12.0).reshape(12, 1)
    assert interleave(rows, 1).ravel().tolist() == [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]


def test_llama3_factors_by_hand():
    """Wavelengths 2π·10000^(i/d): below length/high nothing changes, above length/low all is divided."""
    config = {"head_dim": 8, "hidden_size": 32, "num_attention_heads": 4, "rope_parameters": LLAMA3_ROPE}
    factors = llama3_factors(config)
    assert factors[0] == 1.0  # 2π = 6.3 < 32/4
    assert factors[2:].tolist() == [8.0, 8.0]  # 628 and 6283 > 32/1
    assert 1 < factors[1] <= 8.0
    assert llama3_factors({"rope_parameters": {"rope_type": "default"}}) is None


# Real tokenizers and models


@pytest.mark.assets
@pytest.mark.parametrize("name", ["stories260K", "envizh-lm"])
def test_real_models(assets, tmp_path, documents, name):
    folder = assets / "models" / name
    if name == "envizh-lm":
        expand = [sys.executable, str(folder / "expand.py"), str(tmp_path / "base")]
        subprocess.run(expand, check=True, capture_output=True)
        folder = tmp_path / "base"
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
def test_real_tokenizers_give_the_same_ids_in_llama_cpp(real, documents, tmp_path, name, family):
    """Of a model of one layer with the real rows; the same texts after trimming the file."""
    import shutil

    from transformers import AutoConfig

    source, folder = real(name), tmp_path / "base"
    shutil.copytree(source.path, folder)
    folder.chmod(0o755)
    rows = max(source.tokenizer.tokens) + 1
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 32, "head_dim": 8, "max_position_embeddings": 64, "vocab_size": rows,
             "query_pre_attn_scalar": 8, "tie_word_embeddings": True}  # fmt: skip
    ids = {k: v for k, v in read_json(source.path / "config.json").items() if k.endswith("_token_id")}
    (folder / "config.json").unlink()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **ids)).save_pretrained(folder)
    export_gguf(folder, tmp_path / "x.gguf", outtype="f16")
    trim_gguf(tmp_path / "x.gguf", tmp_path / "y.gguf")
    old, new = (open_llama(tmp_path / f"{name}.gguf", vocab_only=True) for name in "xy")
    old_to_new = {at: i for i, at in enumerate(open_gguf(tmp_path / "y.gguf").value(NEW_TO_OLD))}
    covered = 0
    for text in map(nfc, documents):
        expected = source.encoder.encode(text).ids
        assert old.tokenize(text.encode(), add_bos=True, special=True) == expected
        trimmed = new.tokenize(text.encode(), add_bos=True, special=True)
        if old_to_new.keys() >= set(expected):
            covered += 1
            assert trimmed == [old_to_new[token_id] for token_id in expected]
        assert old.detokenize(expected, special=True) == new.detokenize(trimmed, special=True)
    assert covered > 100


# Bad input


@pytest.fixture
def small(tmp_path_factory):
    place = tmp_path_factory.mktemp("small")
    build.make_checkpoint(place / "base", "qwen2")
    export_gguf(place / "base", place / "base.gguf")
    return place


def test_broken_files_are_refused(small, tmp_path):
    data = (small / "base.gguf").read_bytes()
    source = read_gguf(small / "base.gguf")
    cases = {
        "short": (data[:200], "truncated"),
        "cut": (data[:-300], "truncated"),
        "magic": (b"GGML" + data[4:], "expected b'GGUF'"),
        "version": (data[:4] + b"\x09" + data[5:], "expected b'GGUF' version 2 or 3"),
        "names": (data[:24] + b"\xff" * 200 + data[224:], "truncated|no valid GGUF header"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            trim_gguf(path, tmp_path / "out.gguf")
    with pytest.raises(UserError, match="is missing"):
        trim_gguf(tmp_path / "none.gguf")

    def written(name: str, **fields) -> Path:
        keep = {key: field for key, field in (source.fields | fields).items() if field is not None}
        write_gguf(source, tmp_path / f"{name}.gguf", fields=keep, rows={})
        return tmp_path / f"{name}.gguf"

    tokens = source.fields[GGML + "tokens"].value()
    per_token = array([0] * len(tokens), items=INT32)
    cases = {
        "kind": (
            {GGML + "model": string("bert")},
            "tokenizer.ggml.model is 'bert', expected one of gpt2, llama",
        ),
        "none": ({GGML + "tokens": None}, "cannot be trimmed"),
        "types": ({GGML + "token_type": array([1], items=INT32)}, "has 1 entries for"),
        "fewer": (
            {GGML + "tokens": array(tokens[:-1], items=STRING), GGML + "token_type": None},
            "rows, the file",
        ),
        "merge": ({GGML + "merges": array(["! zz"], items=STRING)}, "makes no token"),
        "other": ({GGML + "mystery": per_token}, "mystery has an entry for each"),
    }
    for name, (fields, message) in cases.items():
        path = written(name, **fields)
        with pytest.raises(UserError, match=message):
            trim_gguf(path, tmp_path / "out.gguf")
    with pytest.raises(UserError, match="was not made by -t trimm_vocab"):
        verify_gguf(small / "base.gguf", small / "base.gguf")
    assert not (tmp_path / "out.gguf").exists() and not (tmp_path / "out.gguf.part").exists()


def test_models_that_llama_cpp_computes_otherwise_are_refused(tmp_path):
    path = tmp_path / "config.json"
    config = {
        "num_attention_heads": 4, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64,
        "intermediate_size": 48, "rms_norm_eps": 1e-6, "head_dim": 8,
    }  # fmt: skip
    assert hyperparameters(config, "llama", path=path)["rope.freq_base"] == 10_000.0
    linear = {**config, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert hyperparameters(linear, "llama", path=path)["rope.scaling.factor"] == 2.0
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    fields = hyperparameters({**config, "rope_parameters": yarn}, "qwen2", path=path)
    assert fields["rope.scaling.type"] == "yarn" and fields["rope.scaling.original_context_length"] == 32768
    gemma = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 8}
    gemma |= {"hidden_activation": "gelu_pytorch_tanh"}
    assert hyperparameters({**config, **gemma}, "gemma2", path=path)["final_logit_softcapping"] == 30.0
    cases = [
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("qwen2", {"head_dim": 16}, "head_dim is 16"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling is 'dynamic'"),
        ("gemma2", {**gemma, "query_pre_attn_scalar": 224}, "query_pre_attn_scalar is 224"),
        ("gemma2", {**gemma, "final_logit_softcapping": None}, "final_logit_softcapping is None"),
    ]
    for architecture, changes, message in cases:
        with pytest.raises(UserError, match=message):
            hyperparameters({**config, **changes}, architecture, path=path)


def test_folders_that_cannot_be_exported(tmp_path):
    for family, message in (("t5", "model_type is 't5'"), ("gpt2", "model_type is 'gpt2'")):
        folder = build.make_checkpoint(tmp_path / family, family)
        with pytest.raises(UserError, match=message):
            export_gguf(folder, tmp_path / "out.gguf")
    base = build.make_checkpoint(tmp_path / "qwen2", "qwen2")
    with pytest.raises(UserError, match="does not end in .gguf"):
        export_gguf(base, tmp_path / "out.bin")
    data = read_json(base / "tokenizer.json")
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+"
    write_json(base / "tokenizer.json", data)
    with pytest.raises(UserError, match="splits text in a way"):
        export_gguf(base, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("out*"))


def test_without_the_gguf_package(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match="pip install gguf"):
        export_gguf(small / "base", small / "other.gguf")


def test_without_llama_cpp_the_other_checks_are_made(small, monkeypatch, capsys):
    trim_gguf(small / "base.gguf")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert verify_gguf(small / "base.gguf", small / "base__trimm_vocab.gguf")
    assert "pip install llama-cpp-python" in capsys.readouterr().out


def test_tasks_that_do_not_fit_a_file(small):
    def run(*argv: str) -> None:
        args = model_edit.build_parser().parse_args(list(argv))
        run_gguf_task(args, args.task)

    gguf = str(small / "base.gguf")
    with pytest.raises(UserError, match="is a GGUF file already"):
        run("-m", gguf, "-t", "export_gguf")
    with pytest.raises(UserError, match="is no GGUF file"):
        run("-m", gguf, "-t", "verify_edit", "-b", str(small / "base"))
    with pytest.raises(UserError, match="takes the folder of a checkpoint"):
        run("-m", gguf, "-t", "view_embeddings")
    with pytest.raises(UserError, match="already exists"):
        run("-m", gguf, "-t", "trimm_vocab", "-o", gguf)


def test_default_names():
    assert default_out(Path("a/b.gguf")) == Path("a/b__trimm_vocab.gguf")
