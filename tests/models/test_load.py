"""vocabkit/models/load.py on real tiny checkpoints: loading and its errors, prompts."""

from pathlib import Path

import pytest
import torch
from chatting import rewrite, save_qwen2
from safetensors.torch import load_file, save_file

from vocabkit.checkpoint.meta_model import tensor_names
from vocabkit.errors import UserError
from vocabkit.models import load as models_load
from vocabkit.models.load import describe, load_model, load_tokenizer, prompt_ids


def test_prompt_of_a_template_that_refuses(chat_copy):
    rewrite(chat_copy / "tokenizer_config.json", chat_template="{{ raise_exception('no system role') }}")
    (chat_copy / "chat_template.jinja").unlink(missing_ok=True)
    model, tokenizer = load_model(chat_copy), load_tokenizer(chat_copy)
    with pytest.raises(UserError, match="no system role; try without --system"):
        prompt_ids(model, tokenizer, [{"role": "system", "content": "x"}])


def test_a_template_that_takes_too_much_is_refused_before_it_runs_here(chat_copy):
    rewrite(chat_copy / "tokenizer_config.json", chat_template="{{ 'a' * 10**10 }}")
    (chat_copy / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(UserError, match="the chat template fails: it takes more than 1,024 MiB"):
        load_tokenizer(chat_copy)


# Loading


def test_load_model_dtype(chat_copy):
    rewrite(chat_copy / "config.json", dtype="bfloat16", torch_dtype="bfloat16")
    tensors = load_file(chat_copy / "model.safetensors")
    save_file(
        {n: t.bfloat16() for n, t in tensors.items()}, chat_copy / "model.safetensors", {"format": "pt"}
    )
    assert load_model(chat_copy, dtype="bfloat16").dtype == torch.bfloat16
    assert load_model(chat_copy, device="cpu").dtype == torch.float32
    assert "float32 on cpu" in describe(load_model(chat_copy, device="cpu"))
    with pytest.raises(UserError, match="--dtype int3: not a number type"):
        load_model(chat_copy, dtype="int3")


def test_large_models_keep_their_dtype_on_a_cpu(chat_copy, monkeypatch):
    monkeypatch.setattr(models_load, "SMALL_PARAMETERS", 10)
    tensors = load_file(chat_copy / "model.safetensors")
    save_file(
        {n: t.bfloat16() for n, t in tensors.items()}, chat_copy / "model.safetensors", {"format": "pt"}
    )
    rewrite(chat_copy / "config.json", dtype="bfloat16", torch_dtype="bfloat16")
    assert load_model(chat_copy, device="cpu").dtype == torch.bfloat16


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
    "encoder": (
        edit_config(model_type="bert", architectures=["BertModel"]), "'bert' .* does not write text",
    ),
    "wrong value": (edit_config(num_attention_heads=5), "config.json|model"),
    "no weights": (remove("model.safetensors"), "cannot load the model"),
    "truncated": (truncate, "cannot load the model"),
    "tensor lost": (lose_a_tensor, "1 tensors .* model.norm.weight"),
    "pickle that runs code": (evil_pickle, "cannot load the model"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_load_model_errors(case, chat_copy, monkeypatch):
    damage, message = BROKEN_MODELS[case]
    damage(chat_copy)
    monkeypatch.chdir(chat_copy.parent)
    with pytest.raises(UserError, match=message) as caught:
        load_model(chat_copy)
    assert str(chat_copy) in str(caught.value) and ";" in str(caught.value)
    assert not (chat_copy.parent / "evil").exists()


BROKEN_TOKENIZERS = [
    remove("tokenizer.json"),
    write("tokenizer.json", "{"),
    write("tokenizer.json", "{}"),
    write("tokenizer_config.json", "{"),
]


@pytest.mark.parametrize("damage", BROKEN_TOKENIZERS)
def test_load_tokenizer_errors(damage, chat_copy):
    damage(chat_copy)
    with pytest.raises(UserError, match="tokenizer") as caught:
        load_tokenizer(chat_copy)
    assert str(chat_copy) in str(caught.value) and ";" in str(caught.value)


def test_missing_folder(tmp_path):
    for load in (load_model, load_tokenizer, tensor_names):
        with pytest.raises(UserError, match="no such folder"):
            load(tmp_path / "nothing")


def test_bin_checkpoint_loads(chat_copy):
    (chat_copy / "model.safetensors").unlink()
    model = load_model(save_qwen2(chat_copy.parent / "again"))
    torch.save(model.state_dict(), chat_copy / "pytorch_model.bin")
    assert torch.equal(load_model(chat_copy).lm_head.weight, model.lm_head.weight)
