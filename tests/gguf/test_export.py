"""Folders written as GGUF: numbers rounded as they should, models refused that would compute otherwise."""

import sys

import build
import gguf
import numpy as np
import pytest
from exporting import LLAMA3_ROPE

from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.gguf.export import export_gguf, hyperparameters, interleave, llama3_factors
from vocabkit.gguf.files import read_gguf


@pytest.mark.parametrize(("outtype", "bound"), [("bf16", 2**-8), ("f16", 2**-11), ("q8_0", 2**-7)])
def test_outtypes_round_as_they_should(tmp_path, outtype, bound):
    base = build.make_checkpoint(tmp_path / "base", "qwen2", tied=False)
    for kind in ("f32", outtype):
        export_gguf(base, tmp_path / f"{kind}.gguf", outtype=kind)
    exact, rounded = (gguf.GGUFReader(tmp_path / f"{kind}.gguf").tensors for kind in ("f32", outtype))
    for one, two in zip(exact, rounded, strict=True):
        assert one.name == two.name
        values = gguf.quants.dequantize(two.data, two.tensor_type)
        scale = np.abs(one.data).max(axis=-1, keepdims=True)
        assert (np.abs(values - one.data) <= scale * bound).all()
        if one.data.ndim == 1:
            assert two.tensor_type == gguf.GGMLQuantizationType.F32


def test_without_outtype_the_checkpoints_own(tmp_path):
    base = build.make_checkpoint(tmp_path / "base", "qwen2", dtype="bfloat16")
    export_gguf(base, tmp_path / "own.gguf")
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


def test_models_that_llama_cpp_computes_otherwise_are_refused(tmp_path):
    path = tmp_path / "config.json"
    config = {
        "num_attention_heads": 4, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64,
        "intermediate_size": 48, "rms_norm_eps": 1e-6, "head_dim": 8,
    }  # fmt: skip

    def of(architecture: str, **changes: object) -> dict:
        return hyperparameters({**config, "model_type": architecture, **changes}, path=path)

    assert of("llama")["rope.freq_base"] == 10_000.0
    linear = {"type": "linear", "factor": 2.0}
    assert of("llama", rope_scaling=linear)["rope.scaling.factor"] == 2.0
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    fields = of("qwen2", rope_parameters=yarn)
    assert fields["rope.scaling.type"] == "yarn" and fields["rope.scaling.original_context_length"] == 32768
    gemma = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 8}
    gemma |= {"hidden_activation": "gelu_pytorch_tanh"}
    assert of("gemma2", **gemma)["final_logit_softcapping"] == 30.0
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
            of(architecture, **changes)


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
