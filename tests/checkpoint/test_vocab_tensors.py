"""vocabkit/checkpoint/vocab_tensors.py: which tensors have one row per token, by the table and by asking
the model.
"""

from pathlib import Path
from typing import Any

import build
import pytest
from tiny import edit_json

from vocabkit.checkpoint import vocab_tensors
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.checkpoint.vocab_tensors import LAYOUTS, VocabTensors, find_vocab_tensors
from vocabkit.errors import UserError
from vocabkit.files import read_json

ROWS = 64


def find(folder: Path) -> VocabTensors:
    return find_vocab_tensors(read_checkpoint(folder))


def write(folder: Path, tensors: dict[str, Any], **config: Any) -> Path:
    """Write a folder by hand: name → shape, or (dtype, shape, bytes); vocab_size 64 unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    edit_json(folder / "config.json", **{"model_type": "qwen2", "vocab_size": ROWS, **config})
    whole = {}
    for name, spec in tensors.items():
        size = 2
        if isinstance(spec, list):
            for length in spec:
                size *= length
        whole[name] = spec if isinstance(spec, tuple) else ("BF16", spec, size)
    build.write_safetensors(folder / "model.safetensors", whole)
    return folder


EMBED, HEAD, BODY = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"
# family, tied → the names that the issue is about
NAMES = {
    "qwen2": (EMBED, HEAD), "qwen3": (EMBED, HEAD), "llama": (EMBED, HEAD), "gemma2": (EMBED, HEAD),
    "gemma3_text": (EMBED, HEAD), "t5": ("shared.weight", HEAD), "mt5": ("shared.weight", HEAD),
    "gpt2": ("transformer.wte.weight", HEAD), "opt": ("model.decoder.embed_tokens.weight", HEAD),
    "gpt_neox": ("gpt_neox.embed_in.weight", "embed_out.weight"),
}  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", NAMES)
def test_tensors_of_every_family(tmp_path, family, tied):
    folder = build.make_checkpoint(tmp_path / "model", family, tied=tied)
    found = find(folder)
    embed, head = NAMES[family]
    assert found.names == ({embed} if tied else {embed, head})
    assert [tensor.name for tensor in found.embed] == [embed]
    assert found.tied == tied
    assert found.rows == read_json(folder / "config.json")["vocab_size"]


@pytest.mark.parametrize("family", [family for family in NAMES if family in LAYOUTS])
@pytest.mark.parametrize("tied", [True, False])
def test_the_table_says_what_the_model_says(tmp_path, monkeypatch, family, tied):
    folder = build.make_checkpoint(tmp_path / "model", family, tied=tied)
    by_table = find(folder)
    monkeypatch.setattr(vocab_tensors, "LAYOUTS", {})
    by_model = find(folder)
    assert by_model.names == by_table.names and by_model.tied == by_table.tied


def test_copies_of_the_embeddings_are_found(tmp_path):
    """Old T5 files hold the same matrix three times."""
    names = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    folder = write(tmp_path, {**dict.fromkeys(names, [ROWS, 4]), "x": [ROWS, 4]}, model_type="t5")
    assert find(folder).names == set(names)


def test_bias_of_the_head_is_found(tmp_path):
    folder = write(tmp_path, {EMBED: [ROWS, 4], HEAD: [ROWS, 4], "lm_head.bias": [ROWS]}, model_type="phi")
    found = find(folder)
    assert found.names == {EMBED, HEAD, "lm_head.bias"} and not found.tied


def test_a_bias_alone_does_not_untie(tmp_path):
    assert find(write(tmp_path, {EMBED: [ROWS, 4], "lm_head.bias": [ROWS]})).tied


def test_a_body_tensor_as_long_as_the_vocabulary_stays(tmp_path):
    """Known architectures are decided by name, not by length."""
    assert find(write(tmp_path, {EMBED: [ROWS, 4], BODY: [ROWS, 4]})).names == {EMBED}


def test_nested_text_config_is_read(tmp_path):
    folder = write(tmp_path, {EMBED: [ROWS, 4]}, vocab_size=None, text_config={"vocab_size": ROWS})
    assert find(folder).rows == ROWS


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({BODY: [4, 4]}, {}, "has no tensor named model.embed_tokens.weight, which model_type 'qwen2' needs"),
        ({EMBED: [63, 4]}, {}, r"model.embed_tokens.weight has 63 rows, .*config.json says vocab_size 64"),
        ({EMBED: [ROWS, 4], HEAD: [65, 4]}, {}, "lm_head.weight has 65 rows"),
        ({EMBED: []}, {}, "has 0 rows"),
        ({EMBED: [ROWS, 4]}, {"vocab_size": None}, "has no vocab_size"),
        (
            {EMBED: [ROWS, 4]},
            {"tie_word_embeddings": False},
            r"tie_word_embeddings false, but .* has no output head, expected one of lm_head.weight",
        ),
        (
            {EMBED: [ROWS, 4]},
            {"text_config": {"tie_word_embeddings": False}},
            "says tie_word_embeddings false",
        ),
        (
            {EMBED: [ROWS, 4], "lm_head.qweight": [8, 4], "lm_head.scales": [8]},
            {"tie_word_embeddings": False},
            "has lm_head.qweight, expected",
        ),
        (
            {EMBED: [ROWS, 4], "model.embed_tokens.weight_scale": [ROWS]},
            {},
            "model.embed_tokens.weight is quantized .model.embed_tokens.weight_scale",
        ),
        (
            {EMBED: [ROWS, 4], HEAD: ("F8_E4M3", [ROWS, 4], ROWS * 4)},
            {},
            "lm_head.weight is quantized .F8_E4M3., expected plain BF16",
        ),
        ({EMBED: ("I8", [ROWS, 4], ROWS * 4)}, {}, "model.embed_tokens.weight is quantized .I8."),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, tensors, config, message):
    folder = write(tmp_path, tensors, **config)
    with pytest.raises(UserError, match=message):
        find(folder)


def test_unknown_architecture_with_another_tensor_as_long_as_the_vocabulary_is_refused(tmp_path):
    folder = build.make_checkpoint(tmp_path / "model", "opt", ffn_dim=512)
    assert read_json(folder / "config.json")["vocab_size"] == 512
    with pytest.raises(
        UserError, match="has one row per token too .512., and it is not known how to trim it"
    ):
        find(folder)
