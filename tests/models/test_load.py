"""vocabkit/models/load.py on real tiny checkpoints: streaming, generating, loading and its errors,
vocabulary.
"""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
import transformers
from chatting import (
    SIZES,
    TINY,
    config,
    rewrite,
    save_qwen2,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import ROOT

from vocabkit.chat.backends import Sampling
from vocabkit.chat.stream import stream_text
from vocabkit.chat.transformers_backend import TransformersBackend
from vocabkit.checkpoint.meta_model import TensorNames, tensor_names
from vocabkit.errors import UserError
from vocabkit.models import load as models_load
from vocabkit.models.load import context_length, describe, load_model, load_tokenizer, prompt_ids

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
D = 32


def save_t5(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=96, d_model=D, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    TINY["unigram"].save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory) -> Path:
    return save_qwen2(tmp_path_factory.mktemp("qwen2") / "model")


@pytest.fixture(scope="session")
def loaded(qwen2):
    return load_model(qwen2), load_tokenizer(qwen2)


@pytest.fixture
def copy(qwen2, tmp_path) -> Path:
    return Path(shutil.copytree(qwen2, tmp_path / "model"))


# Streaming


def check_stream(ids: list[int], tokenizer) -> list[str]:
    for skip in (False, True):
        pieces = list(stream_text(iter(ids), tokenizer, skip_special_tokens=skip))
        wanted = tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        assert "".join(pieces) == wanted
        assert all(pieces)
    return pieces


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_stream_equals_decode_for_any_ids(name, data):
    tokenizer = TINY[name]
    some_bytes = st.integers(3, 258)  # byte tokens of spm_bpe, whose runs are judged as a whole
    any_id = st.integers(0, len(tokenizer) + 5)  # ids of padding rows have no text
    check_stream(data.draw(st.lists(any_id | some_bytes, max_size=20)), tokenizer)


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=30) | st.text("aọ🇻🇳👨\u200d 好\u0301\t▁xQ", max_size=30))
def test_stream_of_text_never_breaks_a_character(name, text):
    pieces = check_stream(encode(TINY[name], text), TINY[name])
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_stream_by_hand():
    """A character is held until its last byte; a byte that cannot go on is shown at once."""
    tokenizer = TINY["byte_level"]
    e1, bb, a1, letter = (tokenizer.convert_tokens_to_ids(token) for token in ("á", "»", "¡", "A"))
    assert list(stream_text([e1, bb, a1, letter], tokenizer)) == ["ỡ", "A"]
    assert list(stream_text([e1, bb, letter, e1], tokenizer)) == ["\ufffdA", "\ufffd"]


def test_stream_yields_as_early_as_it_can():
    """One piece per whole-character token: nobody waits for a word that is already there."""
    for name, text in [
        ("byte_level", "The quick fox"),
        ("spm_bpe", "the quick"),
        ("unigram", "The quick fox"),
    ]:
        ids = [i for i in encode(TINY[name], text) if i not in TINY[name].all_special_ids]
        seen = []

        def feed(ids=ids, seen=seen):
            for token_id in ids:
                seen.append(token_id)
                yield token_id

        lag = [len(seen) for _ in stream_text(feed(), TINY[name])]
        assert lag[-1] == len(ids) and len(lag) >= len(ids) - 1, name


@pytest.mark.parametrize("name", ["spm_bpe", "unigram"])
def test_stream_decodes_short_windows(name, monkeypatch):
    """The cost of a token does not grow with the answer."""
    tokenizer = TINY[name]
    lengths = []
    decode = tokenizer.decode
    monkeypatch.setattr(
        tokenizer, "decode", lambda ids, **options: lengths.append(len(ids)) or decode(ids, **options)
    )
    check = encode(tokenizer, "the quick fox " * 200)
    list(stream_text(check, tokenizer))
    assert len(lengths) >= len(check) and max(lengths) <= 4


@pytest.mark.assets
@pytest.mark.parametrize("name", ["qwen2.5-instruct", "gemma-2-it", "t5-v1_1"])
def test_stream_on_real_tokenizers(name):
    import random

    folder = ASSETS / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, set VOCABKIT_ASSETS")
    tokenizer = load_tokenizer(folder)
    vocab = tokenizer.get_vocab()
    byte_ids = [i for token, i in vocab.items() if token.startswith("<0x") and len(token) == 6]
    rng = random.Random(name)
    for _ in range(60):
        ids = [rng.randrange(max(vocab.values()) + 3) for _ in range(rng.randrange(12))]
        check_stream([rng.choice(byte_ids) if byte_ids and rng.random() < 0.4 else i for i in ids], tokenizer)
    for text in [
        "Tiếng Việt có dấu, e\u0323\u0302 tách rời.",
        "我的名字是李国民 🇻🇳👩‍👩‍👧",
        "  a\t\n\n b  <0xE2>▁",
        "ꦲꦏ᭄ဗမာ𐍈",
    ]:
        pieces = check_stream(encode(tokenizer, text), tokenizer)
        assert not any("\ufffd" in piece for piece in pieces)


# Generating


def generate(model, tokenizer, prompt, *, stop=None, **sampling):
    return TransformersBackend("m", model, tokenizer).generate(prompt, Sampling(**sampling), stop=stop)


def test_generate_equals_transformers(loaded):
    model, tokenizer = loaded
    messages = [{"role": "user", "content": "Xin chào"}]
    ids = prompt_ids(model, tokenizer, messages)
    assert tokenizer.decode(ids) == "<|im_start|>user\nXin chào<|im_end|>\n<|im_start|>assistant\n"
    whole = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=25)[0, len(ids) :].tolist()
    wanted = [i for i in whole if i != tokenizer.eos_token_id]
    assert list(generate(model, tokenizer, ids, temperature=0.0, max_new_tokens=25)) == wanted


def test_generate_honours_generation_config(copy):
    """End tokens come from the list, suppressed ids never appear, the folder's sampling can be turned off."""
    free = load_model(copy)
    tokenizer = load_tokenizer(copy)
    prompt = tokenizer("Xin chào")["input_ids"]
    answer = list(generate(free, tokenizer, prompt, temperature=0.0, max_new_tokens=12))
    end = next(i for i in answer[3:] if i not in answer[:3])
    rewrite(
        copy / "generation_config.json", eos_token_id=[tokenizer.eos_token_id, end], do_sample=True, top_k=3
    )
    ended = load_model(copy)
    assert list(generate(ended, tokenizer, prompt, temperature=0.0)) == answer[: answer.index(end)]
    suppressed = json.loads((copy / "generation_config.json").read_text())["suppress_tokens"]
    rewrite(copy / "generation_config.json", suppress_tokens=[*suppressed, answer[0]])
    silent = load_model(copy)
    assert answer[0] not in list(generate(silent, tokenizer, prompt, temperature=5.0, max_new_tokens=60))


def test_generate_seed(loaded):
    model, tokenizer = loaded
    prompt = tokenizer("Xin")["input_ids"]
    one, two, other = (
        list(generate(model, tokenizer, prompt, temperature=3.0, max_new_tokens=20, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == two != other


def test_generate_stops(copy):
    rewrite(copy / "generation_config.json", eos_token_id=None)
    model, tokenizer = load_model(copy), load_tokenizer(copy)
    tokenizer.eos_token = None
    stop = threading.Event()
    n = 0
    for _ in generate(model, tokenizer, [5, 6], max_new_tokens=100_000, stop=stop):
        n += 1
        if n == 3:
            stop.set()
    assert n < 500
    answer = generate(model, tokenizer, [5, 6], max_new_tokens=100_000)
    next(answer)
    answer.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "generate"]


def test_generate_errors(loaded):
    model, tokenizer = loaded
    with pytest.raises(UserError, match="the tokenizer gives id 384 but the model has 384 rows"):
        generate(model, tokenizer, [384])
    with pytest.raises(UserError, match="prompt is empty"):
        generate(model, tokenizer, [])
    with pytest.raises(ValueError):  # of transformers, raised in the other thread
        list(generate(model, tokenizer, [5], temperature=-1.0))


def test_prompt_of_a_template_that_refuses(copy):
    rewrite(copy / "tokenizer_config.json", chat_template="{{ raise_exception('no system role') }}")
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    model, tokenizer = load_model(copy), load_tokenizer(copy)
    with pytest.raises(UserError, match="no system role; try without --system"):
        prompt_ids(model, tokenizer, [{"role": "system", "content": "x"}])


def test_t5_is_plain_seq2seq(tmp_path):
    model, tokenizer = load_model(save_t5(tmp_path / "t5")), load_tokenizer(tmp_path / "t5")
    history = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    ids = prompt_ids(model, tokenizer, history)
    assert ids == encode(tokenizer, "system\nuser") and ids[-1] == tokenizer.eos_token_id
    whole = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=9)[0, 1:].tolist()
    wanted = [i for i in whole if i != tokenizer.eos_token_id]
    assert list(generate(model, tokenizer, ids, temperature=0.0, max_new_tokens=9)) == wanted
    assert context_length(model) is None


# Loading


def test_load_model_dtype(copy):
    rewrite(copy / "config.json", dtype="bfloat16", torch_dtype="bfloat16")
    tensors = load_file(copy / "model.safetensors")
    save_file({n: t.bfloat16() for n, t in tensors.items()}, copy / "model.safetensors", {"format": "pt"})
    assert load_model(copy, dtype="bfloat16").dtype == torch.bfloat16
    assert load_model(copy, device="cpu").dtype == torch.float32
    assert "float32 on cpu" in describe(load_model(copy, device="cpu"))
    with pytest.raises(UserError, match="--dtype int3: not a number type"):
        load_model(copy, dtype="int3")


def test_large_models_keep_their_dtype_on_a_cpu(copy, monkeypatch):
    monkeypatch.setattr(models_load, "SMALL_PARAMETERS", 10)
    tensors = load_file(copy / "model.safetensors")
    save_file({n: t.bfloat16() for n, t in tensors.items()}, copy / "model.safetensors", {"format": "pt"})
    rewrite(copy / "config.json", dtype="bfloat16", torch_dtype="bfloat16")
    assert load_model(copy, device="cpu").dtype == torch.bfloat16


def edit_config(**changes: object):
    return lambda folder: rewrite(folder / "config.json", **changes)


def write(name: str, text: str):
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


def evil_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")


BROKEN_MODELS = {
    "no config": (remove("config.json"), "config.json"),
    "bad config": (write("config.json", "{oops"), "config.json"),
    "config is a list": (write("config.json", "[]"), "config.json"),
    "rows": (edit_config(vocab_size=380), r"embed_tokens.weight is \(384, 32\) .* but \(380, 32\)|lm_head"),
    "unknown type": (edit_config(model_type="zzz"), "model_type 'zzz': transformers .* does not know it"),
    "own code": (edit_config(model_type="zzz", auto_map={"AutoConfig": "c.C"}), "code, which is never run"),
    "no text": (edit_config(model_type="vit", architectures=["ViTModel"]), "'vit' .* does not write text"),
    "wrong value": (edit_config(num_attention_heads=5), "config.json|model"),
    "no weights": (remove("model.safetensors"), "cannot load the model"),
    "truncated": (truncate, "cannot load the model"),
    "tensor lost": (lose_a_tensor, "1 tensors .* model.norm.weight"),
    "pickle that runs code": (evil_pickle, "cannot load the model"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_load_model_errors(case, copy, monkeypatch):
    damage, message = BROKEN_MODELS[case]
    damage(copy)
    monkeypatch.chdir(copy.parent)
    with pytest.raises(UserError, match=message) as caught:
        load_model(copy)
    assert str(copy) in str(caught.value) and ";" in str(caught.value)
    assert not (copy.parent / "evil").exists()


BROKEN_TOKENIZERS = [
    remove("tokenizer.json"),
    write("tokenizer.json", "{"),
    write("tokenizer.json", "{}"),
    write("tokenizer_config.json", "{"),
]


@pytest.mark.parametrize("damage", BROKEN_TOKENIZERS)
def test_load_tokenizer_errors(damage, copy):
    damage(copy)
    with pytest.raises(UserError, match="tokenizer") as caught:
        load_tokenizer(copy)
    assert str(copy) in str(caught.value) and ";" in str(caught.value)


def test_missing_folder(tmp_path):
    for load in (load_model, load_tokenizer, tensor_names):
        with pytest.raises(UserError, match="no such folder"):
            load(tmp_path / "nothing")


def test_bin_checkpoint_loads(copy):
    (copy / "model.safetensors").unlink()
    model = load_model(save_qwen2(copy.parent / "again"))
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    assert torch.equal(load_model(copy).lm_head.weight, model.lm_head.weight)


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
