"""How a tokenizer splits text, by llama.cpp's names: each known name cuts as the tokenizers library does."""

import random

import build
import pytest

from vocabkit.checkpoint.folder import open_folder
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.gguf.export import all_fields, runtimes
from vocabkit.gguf.files import write_gguf
from vocabkit.gguf.model import load_llama
from vocabkit.gguf.pre import PRE, pre_name, splits_by
from vocabkit.gguf.vocab import read_vocab
from vocabkit.tokenizer.encoder import GPT2, QWEN2, load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json

LLAMA = {
    "model_type": "llama", "num_attention_heads": 4, "hidden_size": 32, "num_hidden_layers": 2,
    "max_position_embeddings": 512, "intermediate_size": 48, "rms_norm_eps": 1e-6,
}  # fmt: skip
BYTES = {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False, "trim_offsets": True}
ALPHABET = "aAbĐđHỌCọ'sSlLtTmM 1234567890²½.,!?()-_=+/\n\r\t  中文字ひカ가éЖ😀…“”\u0301"


def split(pattern: str, **how) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False, **how}


def random_texts(count: int) -> list[str]:
    choose = random.Random(3)
    texts = ["".join(choose.choices(ALPHABET, k=choose.randint(1, 30))) for _ in range(count)]
    return [*texts, "HỌC SINH Việt Nam", "1234567 12 123 ½²", "don't DON'T we'LL", "a\n\n b", "x  \n y", "  "]


@pytest.mark.slow
@pytest.mark.parametrize(("splits", "ignore_merges"), PRE, ids=PRE.values())
def test_llama_cpp_cuts_as_the_library_does(real, tmp_path, splits, ignore_merges):
    pytest.importorskip("llama_cpp", reason="no llama-cpp-python: pip install llama-cpp-python")
    data = read_json(real("llama-3.2-instruct").path / "tokenizer.json")
    data["model"]["ignore_merges"] = ignore_merges
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*map(split, splits), BYTES]}
    write_json(tmp_path / "tokenizer.json", data)
    write_json(tmp_path / "config.json", LLAMA)
    vocab = read_vocab(tmp_path, read_tokenizer_json(tmp_path))
    assert vocab.pre == PRE[splits, ignore_merges]
    fields = all_fields(LLAMA, vocab, path=tmp_path / "config.json", name="m", kind="f32")
    write_gguf(tmp_path / "m.gguf", fields=fields, tensors=[])
    llama, encoder = load_llama(tmp_path / "m.gguf", vocab_only=True), load_encoder(tmp_path)
    for text in random_texts(400):
        expected = encoder.encode(text, add_special_tokens=False).ids
        assert llama.tokenize(text.encode(), add_bos=False, special=True) == expected, text


SMOLLM = [
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False, "trim_offsets": True},
]


@pytest.mark.parametrize(
    ("parts", "ignore_merges", "name"),
    [
        (SMOLLM, False, "smollm"),
        (SMOLLM[1:], False, "gpt-2"),
        ([{key: value for key, value in SMOLLM[1].items() if key != "use_regex"}], False, "gpt-2"),
        ([split(r"\p{N}"), split(GPT2), BYTES], False, "smollm"),
        ([split(QWEN2), BYTES], False, "qwen2"),
        ([split(QWEN2, behavior="Removed", invert=True), BYTES], False, "qwen2"),
        ([split(QWEN2), BYTES], True, None),
        ([split(QWEN2, behavior="MergedWithPrevious"), BYTES], False, None),
        ([split(QWEN2, invert=True), BYTES], False, None),
        ([split(r"\p{N}", behavior="Removed", invert=True), BYTES], False, None),
        ([SMOLLM[1] | {"add_prefix_space": True}], False, None),
        ([{"type": "Digits", "individual_digits": False}, SMOLLM[1]], False, None),
        ([{"type": "Punctuation", "behavior": "Contiguous"}, SMOLLM[1]], False, None),
        ([split("") | {"pattern": {"String": "."}}, BYTES], False, None),
        ([BYTES], False, None),
    ],
)  # fmt: skip
def test_the_name_of_what_a_tokenizer_says(parts, ignore_merges, name):
    data = {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": parts},
        "model": {"ignore_merges": ignore_merges},
    }
    assert pre_name(data) == name
    assert splits_by(None) == () and pre_name({"pre_tokenizer": None, "model": {}}) is None


def test_what_a_folder_runs_with_is_said_before_the_work(tmp_path):
    base = build.make_checkpoint(tmp_path / "base", "qwen2")
    assert "GGUF file (-t export_gguf) with llama.cpp" in runtimes(open_folder(base))
    data = read_json(base / "tokenizer.json")
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}"
    write_json(base / "tokenizer.json", data)
    said = runtimes(open_folder(base))
    assert "no GGUF file" in said and "splits text in a way that llama.cpp does not know" in said
    with pytest.raises(UserError, match="splits text in a way"):
        read_vocab(base, read_tokenizer_json(base))


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_families_that_have_no_gguf(checkpoint, family):
    said = runtimes(open_folder(checkpoint(family)))
    assert "no GGUF file for llama.cpp" in said and f"model_type is '{family}', expected one of qwen2" in said
