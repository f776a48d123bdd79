"""Real tiny checkpoints for the tests: a tokenizer folder of conftest.py and a random model of two layers.

Writes ordinary folders below the path it is given, with the same bytes for the same arguments.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from tiny import SENTENCES, edit_json, write_tiny

from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.files import read_json, write_json

COVERED, FOREIGN = SENTENCES[:6], [*SENTENCES[6:], "Привет, как дела?", "สวัสดีครับ", "안녕하세요"]
D = 32
TOKENIZER_OF = {"qwen2": "qwen", "qwen3": "qwen", "gpt2": "qwen", "gemma2": "gemma", "gemma3_text": "gemma"}
TOKENIZER_OF |= {"t5": "t5", "mt5": "t5"}  # the others: like Llama-3's
SMALL = {
    "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 128, "head_dim": 8,
}  # fmt: skip
T5_SMALL = {"d_model": D, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
# family → settings of its config; opt and gpt_neox are in no table of ours, so the model itself is asked
FAMILIES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("qwen2", "qwen3", "llama", "phi", "gemma2", "gemma3_text"), SMALL),
    **dict.fromkeys(("t5", "mt5"), T5_SMALL),
    "gpt2": {"n_embd": D, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "opt": {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48,
            "max_position_embeddings": 128, "word_embed_proj_dim": D},
    "gpt_neox": {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
                 "max_position_embeddings": 128},
}  # fmt: skip


def make_checkpoint(
    folder: Path,
    family: str = "qwen2",
    *,
    tied: bool = True,
    shards: int = 1,
    dtype: str = "float32",
    **changes: Any,
) -> Path:
    """Write a complete folder: settings, tokenizer files, weights; changes go into config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    torch.set_num_threads(1)  # for tensors this small, more threads only wait for each other
    write_tiny(folder, TOKENIZER_OF.get(family, "llama3"))
    if family == "mt5":  # its tokenizer class expects other special tokens than T5's
        edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    from_tokenizer = {k: v for k, v in read_json(folder / "config.json").items() if k != "model_type"}
    none = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))  # GPT-2 says 50256 otherwise
    # initializer_range: large enough that greedy answers are not one token for ever
    config = AutoConfig.for_model(
        family,
        **{
            **FAMILIES[family],
            "tie_word_embeddings": tied,
            "initializer_range": 0.3,
            **none,
            **from_tokenizer,
            **changes,
        },
    )
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{family}{tied}".encode()).digest()[:4], "big"))
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config, dtype=getattr(torch, dtype)).eval()
    for parameter in model.parameters():  # T5 starts with rows that are all alike in float16
        if parameter.dim() == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    if config.is_encoder_decoder and not tied:  # transformers 5 ties every T5 that it makes itself
        _give_own_head(folder)
    if shards > 1:
        split(folder, shards)
    return folder


def _give_own_head(folder: Path) -> None:
    """Untie a T5 as v1.1 and mT5 are: a head of its own, and config.json says so."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn_like(tensors["shared.weight"])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", tie_word_embeddings=False)


def split(folder: Path, shards: int) -> None:
    """Spread the tensors of model.safetensors over several files, the embeddings in the last but one."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for at in range(shards):
        file_name = f"model-{at + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[at::shards]}
        save_file(part, folder / file_name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file_name))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )


def as_bin(folder: Path, *, shards: int = 1, zipped: bool = True) -> dict[str, Any]:
    """Replace the safetensors of a complete folder by what torch.save() makes of the model's state_dict.

    Returns that state_dict: a tied head is in it, and is the same memory. Aliases lie in one shard, as
    transformers puts them. zipped: not in the format of before torch 1.6.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    is_seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
    auto = AutoModelForSeq2SeqLM if is_seq2seq else AutoModelForCausalLM
    state = dict(auto.from_pretrained(folder, dtype="auto").state_dict())
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    places = sorted({tensor.data_ptr() for tensor in state.values()})
    weight_map = {}
    for at in range(shards):
        name = f"pytorch_model-{at + 1:05}-of-{shards:05}.bin" if shards > 1 else "pytorch_model.bin"
        part = {key: value for key, value in state.items() if value.data_ptr() in places[at::shards]}
        torch.save(part, folder / name, _use_new_zipfile_serialization=zipped)
        weight_map.update(dict.fromkeys(part, name))
    if shards > 1:
        write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})
    return state


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int], int | bytes]]) -> None:
    """Write a file by hand: name → dtype, shape, its bytes or the number of zeros (a sparse file)."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        size = data if isinstance(data, int) else len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            if isinstance(data, bytes):
                file.write(data)
            else:
                file.seek(data, 1)
        file.truncate(8 + len(text) + at)


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, and of what links point to."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def load(folder: Path) -> Any:
    """The model in a folder, float32, every tensor of it found."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    is_seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
    auto = AutoModelForSeq2SeqLM if is_seq2seq else AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    return model.eval()


def read_all(found: Any) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in found.files for name, tensor in load_file(file).items()}


def stored(folder: Path) -> dict[str, Any]:
    """Name → tensor, of every weight file of a folder."""
    return read_all(read_checkpoint(folder))
