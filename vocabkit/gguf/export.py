"""A checkpoint folder → one GGUF file that llama.cpp and everything built on it opens.

Reads config.json, the tokenizer files and safetensors; writes FILE.gguf. The stock converter recognizes a
tokenizer by hashing the ids of a test text, which no trimmed tokenizer passes; here the name of the splitting
expression is read from tokenizer.json itself (vocabkit/gguf/vocab.py). Padding rows are left out: llama.cpp
needs none, and would let the model choose them.

What differs between the two formats, beside names (src/models/*.cpp of llama.cpp):

    Llama    rows of q and k: transformers turns the first half of a head against the second, ggml
             neighbours, so the halves are interleaved; the stretching of rope is a tensor, rope_freqs
    Gemma-2  the norms' weights are stored less one, and llama.cpp adds nothing
    all      one-dimensional tensors are float32 whatever the type of the others
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.checkpoint.folder import Folder, open_folder
from vocabkit.checkpoint.numbers import as_float32, to_bfloat16
from vocabkit.checkpoint.shards import Tensor, read_rows
from vocabkit.errors import UserError
from vocabkit.files import progress_bar, read_json_object
from vocabkit.gguf.files import import_gguf
from vocabkit.gguf.vocab import GgufVocab, read_vocab
from vocabkit.outputs import new_file

ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "gemma2": "gemma2"}

OUTTYPES = ("bf16", "f16", "f32", "q8_0")

GEMMA2_27B_LAYERS = 46  # llama.cpp scales attention by 1/√(hidden/heads) for it, by 1/√head_dim for others


@dataclass(frozen=True)
class Piece:
    """One tensor of the file: what it is made of, its type there, and how its rows are ordered.

    source: None for a tensor that is computed, then values holds it. rows: of the file; order: heads whose
    halves are interleaved, 0 for none. plus: added to every value.
    """

    name: str
    type: str
    rows: int
    columns: int
    source: Tensor | None = None
    values: np.ndarray | None = None
    heads: int = 0
    plus: float = 0.0


def export_gguf(model: Path, out: Path, *, outtype: str | None = None) -> Path:
    """Write MODEL as OUT, and a Modelfile beside it; outtype None: the checkpoint's own.

    Raises UserError for an architecture or tokenizer that llama.cpp cannot run alike; nothing is then
    written.
    """
    gguf = import_gguf()
    if out.suffix != ".gguf":
        raise UserError(f"{out} does not end in .gguf, which llama.cpp expects; name it {out}.gguf")
    from vocabkit.gguf.modelfile import modelfile
    from vocabkit.tokenizer.encoder import load_encoder

    source = open_folder(model)
    _ = source.required  # UserError for an id that is no token
    config = _text_config(read_json_object(model / "config.json"))
    architecture = ARCHITECTURES.get(config.get("model_type", ""))
    if architecture is None:
        raise UserError(
            f"{model / 'config.json'}: model_type is {config.get('model_type')!r}, expected one of "
            f"{', '.join(ARCHITECTURES)}; convert this model with llama.cpp's own convert_hf_to_gguf.py"
        )
    vocab = read_vocab(model, source.tokenizer, load_encoder(model))
    kind = outtype or _own_type(source.tensors.embed[0])
    fields = hyperparameters(config, architecture, path=model / "config.json")
    pieces = list(_pieces(source, config, architecture, kind, len(vocab.tokens)))
    ollama = out.with_name(out.name.removesuffix(".gguf") + ".Modelfile")
    name = model.resolve().name
    with new_file(out) as part, new_file(ollama) as text:
        writer = writer_of(gguf, part, architecture, name=name, kind=kind, fields=fields, vocab=vocab)
        _write(gguf, writer, pieces)
        text.write_text(modelfile(out.name, vocab, model), encoding="utf-8")
    _print_written(out, ollama, pieces, vocab, kind)
    return out


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, **(config.get("text_config") or {})}


def _own_type(tensor: Tensor) -> str:
    return {"BF16": "bf16", "F16": "f16"}.get(tensor.dtype, "f32")


def hyperparameters(config: Mapping[str, Any], architecture: str, *, path: Path) -> dict[str, Any]:
    """Return the fields `{arch}.*` of a model, without that prefix; path: of config.json, for errors.

    Raises UserError for what llama.cpp would compute otherwise.
    """
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    fields: dict[str, Any] = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "rope.dimension_count": head_dim,
        "rope.freq_base": float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
    }
    fields |= _rope_scaling(rope, architecture, path)
    activation = config.get("hidden_activation") or config.get("hidden_act", "silu")
    expected = ("gelu_pytorch_tanh", "gelu_tanh") if architecture == "gemma2" else ("silu",)
    if activation not in expected:
        raise _refuse(path, "hidden_act", activation, expected[0])
    if architecture == "qwen2" and head_dim * heads != config["hidden_size"]:
        raise _refuse(path, "head_dim", head_dim, str(config["hidden_size"] // heads))
    if config.get("use_sliding_window"):
        raise _refuse(path, "use_sliding_window", True, "false: llama.cpp has no such window for qwen")
    if architecture == "gemma2":
        fields["attention.sliding_window"] = config["sliding_window"]
        for name, key in (
            ("attn_logit", "attn_logit_softcapping"),
            ("final_logit", "final_logit_softcapping"),
        ):
            if not config.get(key):
                raise _refuse(path, key, config.get(key), "a number")
            fields[f"{name}_softcapping"] = float(config[key])
        scale = config["hidden_size"] // heads if fields["block_count"] == GEMMA2_27B_LAYERS else head_dim
        if config.get("query_pre_attn_scalar", head_dim) != scale:
            raise _refuse(path, "query_pre_attn_scalar", config["query_pre_attn_scalar"], str(scale))
    return fields


def _rope_scaling(rope: Mapping[str, Any], architecture: str, path: Path) -> dict[str, Any]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("default", None) or (kind == "llama3" and architecture == "llama"):
        return {}
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        length = rope["original_max_position_embeddings"]
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": length,
        }
    raise _refuse(path, "rope_scaling", kind, "default, linear, yarn or llama3")


def _refuse(path: Path, what: str, found: object, expected: str) -> UserError:
    return UserError(
        f"{path}: {what} is {found!r}, llama.cpp computes with {expected}; this model cannot be exported"
    )


def llama3_factors(config: Mapping[str, Any]) -> np.ndarray | None:
    """Return (head_dim / 2,) float32, by how much Llama 3 stretches each frequency of rope; None without.

    Source of the formula: Llama 3.1's apply_scaling; transformers has it in modeling_rope_utils.py.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) != "llama3":
        return None
    base = float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    wavelengths = 2 * math.pi * base ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    length, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((length / wavelengths - low) / (high - low), 0, 1)  # 0: stretched fully, 1: not at all
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _pieces(
    source: Folder, config: Mapping[str, Any], architecture: str, kind: str, tokens: int
) -> Iterator[Piece]:
    """Yield the tensors of the file in the order of its layers."""
    import gguf

    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    layers = config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(arch, layers)
    heads = {"q_proj": config["num_attention_heads"]}
    heads["k_proj"] = config.get("num_key_value_heads") or config["num_attention_heads"]
    if architecture == "llama" and (factors := llama3_factors(config)) is not None:
        yield Piece("rope_freqs.weight", "f32", 1, len(factors), values=factors)
    found = set()
    for tensor in source.checkpoint.tensors.values():
        name = names.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UserError(
                f"{tensor.file}: {tensor.name} has no place in a {architecture} GGUF; this model cannot be "
                "exported"
            )
        found.add(name)
        if tensor in source.tensors.head and _is_copy(source, tensor):
            continue
        flat = len(tensor.shape) == 1
        rows, columns = (1, tensor.shape[0]) if flat else tensor.shape
        if tensor.name in source.tensors.names:
            rows = tokens
        stored = "f32" if flat else kind
        if kind == "q8_0" and columns % 32:
            stored = "f32" if flat else "f16"  # rows are no whole number of blocks
        part = next((part for part in heads if f".{part}." in tensor.name), "")
        yield Piece(
            name,
            stored,
            rows,
            columns,
            source=tensor,
            heads=heads[part] if part and architecture == "llama" else 0,
            plus=1.0 if architecture == "gemma2" and tensor.name.endswith("norm.weight") else 0.0,
        )
    last = f"blk.{layers - 1}.ffn_down.weight"
    if missing := {"token_embd.weight", "output_norm.weight", last} - found:
        raise UserError(f"{source.path} has no tensor for {min(missing)}; is the checkpoint complete?")


def _is_copy(source: Folder, head: Tensor) -> bool:
    """Whether a stored head is the embeddings once more, as some tied checkpoints have it."""
    config = read_json_object(source.path / "config.json")
    return bool(_text_config(config).get("tie_word_embeddings", False)) and len(head.shape) == 2


def writer_of(
    gguf: Any,
    part: Path,
    architecture: str,
    *,
    name: str,
    kind: str,
    fields: Mapping[str, Any],
    vocab: GgufVocab,
) -> Any:
    """Return a gguf.GGUFWriter that holds everything but the tensors."""
    writer = gguf.GGUFWriter(part, architecture)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[types[kind]])
    writer.add_vocab_size(len(vocab.tokens))
    for key, value in fields.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{architecture}.{key}", value)
    writer.add_tokenizer_model(vocab.model)
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    writer.add_token_types(vocab.types)
    if vocab.scores:
        writer.add_token_scores(vocab.scores)
    if vocab.merges:
        writer.add_token_merges(vocab.merges)
    for key, token_id in vocab.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", token_id)
    writer.add_add_bos_token(vocab.add_bos)
    writer.add_add_eos_token(vocab.add_eos)
    writer.add_add_space_prefix(vocab.add_space_prefix)
    if vocab.suppressed:
        writer.add_array("tokenizer.ggml.suppress_tokens", vocab.suppressed)
    if vocab.chat_template:
        writer.add_chat_template(vocab.chat_template)
    return writer


def _write(gguf: Any, writer: Any, pieces: list[Piece]) -> None:
    """Write the file: header, then every tensor a block of rows at a time."""
    for piece in pieces:
        quantization = gguf.GGMLQuantizationType[piece.type.upper()]
        block, size = gguf.GGML_QUANT_SIZES[quantization]
        shape = (piece.rows, piece.columns) if _is_matrix(piece) else (piece.columns,)
        nbytes = piece.rows * piece.columns // block * size
        writer.add_tensor_info(piece.name, shape, np.dtype(np.float16), nbytes, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file = writer.fout[0]
    with progress_bar(sum(piece.rows * piece.columns for piece in pieces), "values") as bar:
        for piece in pieces:
            writer.write_padding(file, file.tell())
            for values in blocks(piece):
                file.write(_stored(gguf, values, piece.type).data.cast("B"))
                bar.update(values.size)
    writer.write_padding(file, file.tell())
    writer.close()


def _is_matrix(piece: Piece) -> bool:
    return piece.source is not None and len(piece.source.shape) == 2


def blocks(piece: Piece) -> Iterator[np.ndarray]:
    """Yield (block, columns) float32, the values of a tensor in the order of the file."""
    if piece.source is None:
        assert piece.values is not None
        yield piece.values.reshape(1, -1)
        return
    tensor, count = piece.source, piece.source.shape[0]
    if len(tensor.shape) == 1:
        raw = np.concatenate(list(read_rows(tensor, range(count))))
        values = as_float32(raw, tensor).reshape(1, -1) + np.float32(piece.plus)
        yield interleave(values.reshape(-1, 1), piece.heads).reshape(1, -1) if piece.heads else values
    elif piece.heads:  # rows move between blocks: a matrix of one layer is small enough to hold
        raw = np.concatenate(list(read_rows(tensor, range(count))))
        yield interleave(as_float32(raw, tensor), piece.heads)
    else:
        for raw in read_rows(tensor, range(min(count, piece.rows))):
            yield as_float32(raw, tensor)
        if piece.rows > count:
            yield np.zeros((piece.rows - count, piece.columns), np.float32)


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return rows with the two halves of every head interleaved: 0 1 2 3 → 0 2 1 3 for one head of four.

    >>> interleave(np.arange(8).reshape(8, 1), 2).ravel().tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows.shape)


def _stored(gguf: Any, values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "bf16":
        return to_bfloat16(values)
    if kind == "f16":
        return values.astype(np.float16)
    if kind == "q8_0":
        return np.ascontiguousarray(gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0))
    return np.ascontiguousarray(values, np.float32)


def _print_written(out: Path, ollama: Path, pieces: list[Piece], vocab: GgufVocab, kind: str) -> None:
    words = sum(1 for at, t in zip(vocab.tokens, vocab.types, strict=True) if t == 4 and at.startswith(" "))
    print(f"{out}: {out.stat().st_size:,} bytes, {len(pieces)} tensors, {kind}, {len(vocab.tokens):,} tokens")
    print(
        f"tokenizer {vocab.model} {vocab.pre}: {len(vocab.merges):,} merges, {words:,} words as user-defined"
    )
    if vocab.suppressed:
        print(f"not generated by llama.cpp: {len(vocab.suppressed)} ids (tokenizer.ggml.suppress_tokens)")
    print(f"{ollama}: for Ollama; try: ollama create {out.stem} -f {ollama}")
