"""vocabkit/checkpoint/meta_model.py: vocabulary tensors by their names in the files, family by family."""

import pytest
import torch
import transformers
from chatting import SIZES, config, rewrite, save_t5
from safetensors.torch import load_file, save_file

from vocabkit.checkpoint.meta_model import TensorNames, tensor_names

D = 32
GPT2 = {"vocab_size": 96, "n_embd": D, "n_layer": 2, "n_head": 4}
DECODER = {"vocab_size": 100, "num_key_value_heads": 2, **SIZES}
GEMMA = {**DECODER, "head_dim": 8}
OPT = {"vocab_size": 100, "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48,
       "word_embed_proj_dim": D}  # fmt: skip
T5 = {"vocab_size": 96, "d_model": D, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART = {"vocab_size": 96, "d_model": D, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
         "decoder_ffn_dim": 48}  # fmt: skip
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
T5_INPUT = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
BART_INPUT = tuple(f"model.{name}" for name in T5_INPUT)
# config class, its values → input, output, bias, tied, unknown
ARCHITECTURES = {
    "tied": ("Qwen2Config", {**DECODER, "tie_word_embeddings": True}, (EMBED,), (HEAD,), (), True, ()),
    "untied": ("Qwen2Config", {**DECODER, "tie_word_embeddings": False}, (EMBED,), (HEAD,), (), False, ()),
    "llama": ("LlamaConfig", DECODER, (EMBED,), (HEAD,), (), False, ()),
    "gemma2": ("Gemma2Config", GEMMA, (EMBED,), (HEAD,), (), True, ()),
    "gemma3 text": ("Gemma3TextConfig", GEMMA, (EMBED,), (HEAD,), (), True, ()),
    "gemma3n": ("Gemma3nTextConfig", {**GEMMA, "vocab_size_per_layer_input": 90, "num_kv_shared_layers": 0},
                (EMBED,), (HEAD,), (), True, ("model.embed_tokens_per_layer.weight",)),
    "phi": ("PhiConfig", {**SIZES, "vocab_size": 100}, (EMBED,), (HEAD,), ("lm_head.bias",), False, ()),
    "gpt2": ("GPT2Config", GPT2, ("transformer.wte.weight",), (HEAD,), (), True, ()),
    "opt": ("OPTConfig", OPT, ("model.decoder.embed_tokens.weight",), (HEAD,), (), True, ()),
    "t5": ("T5Config", T5, T5_INPUT, (HEAD,), (), True, ()),
    "t5 untied": ("T5Config", {**T5, "tie_word_embeddings": False}, T5_INPUT, (HEAD,), (), False, ()),
    "bart": ("BartConfig", BART, BART_INPUT, (HEAD,), (), True, ("final_logits_bias",)),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tensor_names(name, tmp_path):
    class_name, values, *wanted = ARCHITECTURES[name]
    config(class_name, **values).save_pretrained(tmp_path)
    if "tie_word_embeddings" in values:  # transformers 5 does not write what T5 v1.1 has in its config.json
        rewrite(tmp_path / "config.json", tie_word_embeddings=values["tie_word_embeddings"])
    assert tensor_names(tmp_path) == TensorNames(*wanted)


def test_tensor_names_looks_into_the_files(tmp_path):
    """An untied T5 whose config says tied, as transformers 5 saves it; a redundant copy is still tied."""
    tensors = load_file(save_t5(tmp_path / "t5") / "model.safetensors")
    save_file({**tensors, "lm_head.weight": torch.randn(96, D)}, tmp_path / "t5" / "model.safetensors")
    assert not tensor_names(tmp_path / "t5").tied
    copied = tensors["shared.weight"].clone()
    save_file({**tensors, "lm_head.weight": copied}, tmp_path / "t5" / "model.safetensors")
    assert tensor_names(tmp_path / "t5").tied


def test_tensor_names_gives_the_names_of_the_files(tmp_path):
    """Files of GPT-2 lack the "transformer." prefix; transformers 5 renamed GPT-NeoX's output."""
    transformers.GPT2LMHeadModel(config("GPT2Config", **GPT2)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors", {"format": "pt"})
    assert tensor_names(tmp_path).input == ("wte.weight",)

    neox = config("GPTNeoXConfig", vocab_size=100, **SIZES)
    transformers.GPTNeoXForCausalLM(neox).save_pretrained(tmp_path / "neox")
    found = tensor_names(tmp_path / "neox")
    assert (found.input, found.output, found.tied) == (
        ("gpt_neox.embed_in.weight",),
        ("embed_out.weight",),
        False,
    )
    assert not found.unknown


def test_tensor_names_of_shards(tmp_path):
    model = transformers.Qwen2ForCausalLM(config("Qwen2Config", **DECODER, tie_word_embeddings=False))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert tensor_names(tmp_path) == TensorNames((EMBED,), (HEAD,), (), False, ())
