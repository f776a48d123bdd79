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
from typing import IO, Any

import numpy as np

from vocabkit.checkpoint.folder import Folder, open_folder
from vocabkit.checkpoint.numbers import as_float32, to_bfloat16
from vocabkit.checkpoint.shards import Tensor, read_rows, write_all
from vocabkit.errors import UserError, reading
from vocabkit.files import Progress, keep_private, progress_bar, read_json_object
from vocabkit.gguf.compare import compare
from vocabkit.gguf.files import Field, NewTensor, field, import_gguf, write_gguf
from vocabkit.gguf.modelfile import modelfile
from vocabkit.gguf.vocab import CONDITIONS, USER_DEFINED, GgufVocab, check_kind, read_vocab
from vocabkit.outputs import publication
from vocabkit.verify.check import SHOWN, print_checks
from vocabkit.verify.rows import aligned


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp computes a family of models; what another value in config.json would mean is refused.

    activations: names of config.json for the function it computes. interleaved: whether rows of q and k are
    (see above). plus: is added to the weights of norms.
    """

    activations: tuple[str, ...] = ("silu",)
    interleaved: bool = False
    plus: float = 0.0


# A new family is a line here: model_type of config.json, which is also llama.cpp's name of the architecture.
ARCHITECTURES = {
    "qwen2": Architecture(),
    "qwen3": Architecture(),
    "llama": Architecture(interleaved=True),
    "gemma2": Architecture(activations=("gelu_pytorch_tanh", "gelu_tanh"), plus=1.0),
}

OUTTYPES = ("bf16", "f16", "f32", "q8_0")
GEMMA2_27B_LAYERS = 46  # llama.cpp scales attention by 1/√(hidden/heads) for it, by 1/√head_dim for others


@dataclass(frozen=True)
class Piece:
    """One tensor of the file: what it is made of, its type there, and how its rows are ordered.

    shape: rows and columns in the file; (1, values) for a vector. source: None for a tensor that is computed,
    then values holds it. heads: whose halves are interleaved, 0 for none. plus: added to every value.
    """

    name: str
    type: str
    shape: tuple[int, int]
    source: Tensor | None = None
    values: np.ndarray | None = None
    heads: int = 0
    plus: float = 0.0


def export_gguf(model: Path, out: Path, *, outtype: str | None = None) -> Path:
    """Write MODEL as OUT, and a Modelfile beside it; outtype None: the checkpoint's own.

    Raises UserError for an architecture or tokenizer that llama.cpp cannot run alike; nothing is then
    written.
    """
    import_gguf()
    if out.suffix != ".gguf":
        raise UserError(f"{out} does not end in .gguf, which llama.cpp expects; name it {out}.gguf")
    source, config = open_folder(model), _config(model / "config.json")
    _ = source.required  # UserError for an id that is no token
    vocab = read_vocab(model, source.tokenizer)
    kind = outtype or {"BF16": "bf16", "F16": "f16"}.get(source.tensors.embed[0].dtype, "f32")
    path, name = model / "config.json", model.resolve().name
    with reading(path):
        fields = all_fields(config, vocab, path=path, name=name, kind=kind)
        pieces = list(_pieces(source, config, kind=kind, tokens=len(vocab.tokens)))
    tensors = [_new_tensor(piece) for piece in pieces]
    ollama = out.with_name(out.name.removesuffix(".gguf") + ".Modelfile")
    for_ollama = modelfile(out.name, vocab, model)
    _print_cut_otherwise(vocab, source.tokenizer.path)
    with publication([out, ollama]) as files:
        part, text = files.places
        with progress_bar(sum(tensor.size for tensor in tensors), "weights") as bar:
            write_gguf(part, fields=fields, tensors=tensors, progress=bar.update)
        text.write_text(for_ollama.text, encoding="utf-8")
        keep_private(source.checkpoint.files[0], part)
        checks = compare(part, source, vocab, tensors=tensors, kind=kind)
        print_checks(checks)
        if any(check.findings for check in checks):
            raise UserError(
                f"{out} was not written: llama.cpp would not run it as {model} runs, see above; please "
                "report it"
            )
    _print_written(out, ollama, vocab, f"{len(tensors)} tensors, {kind}")
    for what in for_ollama.left_out:
        print(f"{ollama} lacks {what}")
    return out


def runtimes(source: Folder) -> str:
    """Return which programs a folder and what is made of it can run with, and why it cannot be exported."""
    if why := why_not_exported(source):
        return f"runs with transformers and vLLM; no GGUF file for llama.cpp and Ollama can be made: {why}"
    return "runs with transformers and vLLM, and as a GGUF file (-t export_gguf) with llama.cpp and Ollama"


def why_not_exported(source: Folder) -> str | None:
    """Return why export_gguf would refuse a folder, as its settings and its tokenizer tell; else None."""
    path = source.path / "config.json"
    try:
        config = _config(path)
        check_kind(source.tokenizer)
        with reading(path):
            hyperparameters(config, path=path)
    except UserError as error:
        return str(error)
    return None


def _config(path: Path) -> dict[str, Any]:
    """Return config.json with what it says of the text part; UserError for an unknown family."""
    config = read_json_object(path)
    config |= config.get("text_config") or {}
    if config.get("model_type") not in ARCHITECTURES:
        raise UserError(
            f"{path}: model_type is {config.get('model_type')!r}, expected one of "
            f"{', '.join(ARCHITECTURES)}; convert this model with llama.cpp's own convert_hf_to_gguf.py"
        )
    return config


def _print_cut_otherwise(vocab: GgufVocab, path: Path) -> None:
    if vocab.cut_otherwise:
        shown = ", ".join(map(repr, vocab.cut_otherwise[:SHOWN]))
        print(
            f"llama.cpp cuts {len(vocab.cut_otherwise):,} texts otherwise than {path}: {shown}: added tokens "
            f"that overlap, or that have {', '.join(CONDITIONS)}, which a GGUF cannot say; remove them from "
            "the list of words, or run the model with transformers where this matters"
        )


def hyperparameters(config: Mapping[str, Any], *, path: Path) -> dict[str, int | float | str]:
    """Return the fields `{arch}.*` of a model, without that prefix; path: of config.json, for errors.

    Raises UserError for what llama.cpp would compute otherwise.
    """
    architecture = config["model_type"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    fields: dict[str, int | float | str] = {
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
    expected = ARCHITECTURES[architecture].activations
    if activation not in expected:
        raise _refuse(path, "hidden_act", activation, expected[0])
    if architecture == "qwen2" and head_dim * heads != config["hidden_size"]:
        raise _refuse(path, "head_dim", head_dim, str(config["hidden_size"] // heads))
    if config.get("use_sliding_window"):
        raise _refuse(path, "use_sliding_window", True, "false: llama.cpp has no such window for qwen")
    if architecture == "gemma2":
        fields["attention.sliding_window"] = config["sliding_window"]
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            if not config.get(name):
                raise _refuse(path, name, config.get(name), "a number")
            fields[name] = float(config[name])
        scale = config["hidden_size"] // heads if fields["block_count"] == GEMMA2_27B_LAYERS else head_dim
        if config.get("query_pre_attn_scalar", head_dim) != scale:
            raise _refuse(path, "query_pre_attn_scalar", config["query_pre_attn_scalar"], str(scale))
    return fields


def _rope_scaling(rope: Mapping[str, Any], architecture: str, path: Path) -> dict[str, int | float | str]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("default", None) or (kind == "llama3" and architecture == "llama"):
        return {}
    if kind in ("linear", "yarn"):
        fields = {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
        if kind == "yarn":
            fields["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        return fields
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


def _pieces(source: Folder, config: Mapping[str, Any], *, kind: str, tokens: int) -> Iterator[Piece]:
    """Yield the tensors of the file in the order of its layers."""
    gguf = import_gguf()
    family, layers = config["model_type"], config["num_hidden_layers"]
    architecture = ARCHITECTURES[family]
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names = gguf.get_tensor_name_map(arch, layers)
    heads = {"q_proj": config["num_attention_heads"]}
    heads["k_proj"] = config.get("num_key_value_heads") or config["num_attention_heads"]
    if family == "llama" and (factors := llama3_factors(config)) is not None:
        yield Piece("rope_freqs.weight", "f32", (1, len(factors)), values=factors)
    found = set()
    for tensor in source.checkpoint.tensors.values():
        name = names.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UserError(
                f"{tensor.file}: {tensor.name} has no place in a {family} GGUF; this model cannot be exported"
            )
        found.add(name)
        if tensor in source.tensors.head and _same_values(tensor, source.tensors.embed[0]):
            continue  # the embeddings once more; llama.cpp takes them where there is no head
        flat = len(tensor.shape) == 1
        rows, columns = (1, tensor.shape[0]) if flat else tensor.shape
        stored = "f32" if flat else kind
        if stored == "q8_0" and columns % 32:
            stored = "f16"  # rows are no whole number of blocks
        part = next((part for part in heads if f".{part}." in tensor.name), "")
        yield Piece(
            name,
            stored,
            (tokens if tensor.name in source.tensors.names else rows, columns),
            source=tensor,
            heads=heads[part] if part and architecture.interleaved else 0,
            plus=architecture.plus if tensor.name.endswith("norm.weight") else 0.0,
        )
    last = f"blk.{layers - 1}.ffn_down.weight"
    if missing := {"token_embd.weight", "output_norm.weight", last} - found:
        raise UserError(f"{source.path} has no tensor for {min(missing)}; is the checkpoint complete?")


def _same_values(head: Tensor, embed: Tensor) -> bool:
    """Whether a head is the embeddings. config.json does not tell: merging a LoRA makes two of tied ones."""
    if head.shape != embed.shape:
        return False
    rows = range(head.shape[0])
    return all(
        np.array_equal(as_float32(one, head), as_float32(two, embed), equal_nan=True)
        for one, two in aligned(read_rows(head, rows), read_rows(embed, rows))
    )


def all_fields(
    config: Mapping[str, Any], vocab: GgufVocab, *, path: Path, name: str, kind: str
) -> dict[str, Field]:
    """Return every field of a model's file; path: of config.json, name: for people, kind: of OUTTYPES."""
    gguf = import_gguf()
    file_type = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}[kind]
    architecture = config["model_type"]
    values = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": name,
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        "general.file_type": int(gguf.LlamaFileType[file_type]),
        f"{architecture}.vocab_size": len(vocab.tokens),
        **{f"{architecture}.{key}": value for key, value in hyperparameters(config, path=path).items()},
    }
    return {key: field(value) for key, value in values.items()} | vocab.fields()


def _new_tensor(piece: Piece) -> NewTensor:
    gguf = import_gguf()
    quantization = gguf.GGMLQuantizationType[piece.type.upper()]
    block, size = gguf.GGML_QUANT_SIZES[quantization]
    rows, columns = piece.shape
    is_matrix = piece.source is not None and len(piece.source.shape) == 2

    def write(file: IO[bytes], progress: Progress) -> None:
        for values in blocks(piece):
            data = _stored(values, piece.type).data.cast("B")
            write_all(file, data)
            progress(len(data))

    dims = (columns, rows) if is_matrix else (columns,)
    return NewTensor(piece.name, dims, quantization, rows * columns // block * size, write)


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
        rows, columns = piece.shape
        for raw in read_rows(tensor, range(min(count, rows))):
            yield as_float32(raw, tensor)
        if rows > count:
            yield np.zeros((rows - count, columns), np.float32)


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return rows with the two halves of every head interleaved: 0 1 2 3 → 0 2 1 3 for one head of four.

    >>> interleave(np.arange(8).reshape(8, 1), 2).ravel().tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows.shape)


def _stored(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "bf16":
        return to_bfloat16(values)
    if kind == "f16":
        return values.astype(np.float16)
    if kind == "q8_0":
        gguf = import_gguf()
        return np.ascontiguousarray(gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0))
    return np.ascontiguousarray(values, np.float32)


def _print_written(out: Path, ollama: Path, vocab: GgufVocab, tensors: str) -> None:
    user_defined = (
        token for token, kind in zip(vocab.tokens, vocab.types, strict=True) if kind == USER_DEFINED
    )
    words = sum(token.startswith(" ") for token in user_defined)
    print(f"{out}: {out.stat().st_size:,} bytes, {tensors}, {len(vocab.tokens):,} tokens")
    print(
        f"tokenizer {vocab.model} {vocab.pre}: {len(vocab.merges):,} merges, {words:,} words as user-defined"
    )
    if vocab.suppressed:
        print(f"not generated by llama.cpp: {len(vocab.suppressed)} ids (tokenizer.ggml.suppress_tokens)")
    print(f"{ollama}: for Ollama; try: ollama create {out.stem} -f {ollama}")
