"""Which tensors have one row per token: transformers builds the model on the meta device and is asked.

Reads config.json and the headers of the weights; writes nothing. For architectures that the table of
checkpoint/vocab_tensors.py does not know.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from vocabkit.checkpoint.hub import model_folder
from vocabkit.checkpoint.shards import INDEX, SINGLE, Tensor, read_checkpoint, read_rows
from vocabkit.errors import UserError, is_panic, one_line
from vocabkit.files import read_json_object


@dataclass(frozen=True)
class TensorNames:
    """Names, as a checkpoint stores them, of the tensors that have one row per token id.

    input, output: the embedding matrices and every alias of them; a tied alias may be absent from the files.
    bias: other parameters of these modules with one entry per row, such as lm_head.bias.
    tied: input and output are one matrix.
    unknown: tensors elsewhere that look indexed by token id (Gemma-3n's per-layer embeddings, BART's
    final_logits_bias): a caller that cannot handle them must refuse the model.
    """

    input: tuple[str, ...]
    output: tuple[str, ...]
    bias: tuple[str, ...]
    tied: bool
    unknown: tuple[str, ...]


def tensor_names(folder: Path, *, stored: Mapping[str, Tensor] | None = None) -> TensorNames:
    """Return which tensors of a checkpoint have one row per token id.

    Builds the model of config.json without memory (meta device). Names and ties are checked against the
    safetensors files where there are any: T5 v1.1 is untied although transformers 5 says tied, and files of
    GPT-2 and GPT-NeoX use other names than the module. stored: instead of the files'; its rows are not read.
    """
    folder = model_folder(folder)
    config = read_config(folder)
    model = build_meta_model(folder, config)
    parts = [model, model.get_encoder(), model.get_decoder()] if config.is_encoder_decoder else [model]
    input_modules = [part.get_input_embeddings() for part in parts]
    output_module = model.get_output_embeddings()
    if input_modules[0] is None or output_module is None:
        raise UserError(f"{folder}: {type(model).__name__} has no input or no output embeddings; unsupported")
    rows = input_modules[0].weight.shape[0]

    # Aliases share one Parameter object, so identity finds the copies whatever they are called.
    inputs = {id(module.weight) for module in input_modules}
    output = id(output_module.weight)
    output_name = next(name for name, module in model.named_modules() if module is output_module)
    parameters = [p for module in [*input_modules, output_module] for p in module.parameters()]
    biases = {id(p) for p in parameters if p.shape[:1] == (rows,)} - inputs - {output}
    suspects = _rows_elsewhere(model, rows, _vocabulary_sizes(config))
    tensors: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    groups: dict[str, list[str]] = {"input": [], "output": [], "bias": [], "unknown": []}
    for name, tensor in tensors.items():
        if id(tensor) == output and (name.startswith(f"{output_name}.") or output not in inputs):
            groups["output"].append(name)
        elif id(tensor) in inputs:
            groups["input"].append(name)
        elif id(tensor) in biases:
            groups["bias"].append(name)
        elif id(tensor) in suspects or name.endswith("final_logits_bias"):
            groups["unknown"].append(name)

    has_files = stored is None and ((folder / SINGLE).exists() or (folder / INDEX).exists())
    readable = read_checkpoint(folder).tensors if has_files else {}
    found = {
        group: tuple(dict.fromkeys(_stored_name(name, tensors, stored or readable) for name in names))
        for group, names in groups.items()
    }
    tied = (
        output in inputs and read_json_object(folder / "config.json").get("tie_word_embeddings") is not False
    )
    both = [next((n for n in found[group] if n in readable), None) for group in ("input", "output")]
    if tied and both[0] and both[1]:
        tied = _equal(readable[both[0]], readable[both[1]])
    return TensorNames(**found, tied=tied)


@contextlib.contextmanager
def as_user_error(folder: Path, what: str, next_step: str) -> Iterator[None]:
    """Turn whatever transformers raises for a broken folder (a dozen unrelated types) into one line."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        reason = f"{type(error).__name__}: {one_line(error)[:300]}"
        raise UserError(f"{folder}: cannot load the {what}: {reason}; {next_step}") from error


def read_config(folder: Path) -> Any:
    """Return the config of a folder; UserError for a model that transformers does not know by itself."""
    raw = read_json_object(folder / "config.json")
    model_type = raw.get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        why = f"transformers {transformers.__version__} does not know it"
        if "auto_map" in raw:
            why = f"it needs its own Python code, which is never run here, and {why}"
        raise UserError(
            f"{folder}/config.json: model_type {model_type!r}: {why}; `pip install -U transformers` or use "
            "another model"
        )
    with as_user_error(folder, "config.json", "correct the named value or copy it from the original model"):
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def auto_class(folder: Path, config: Any) -> Any:
    """Return the class that loads the model; UserError for one that does not write text."""
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    named = [
        getattr(transformers, name) for name in config.architectures or [] if hasattr(transformers, name)
    ]
    writing = next((found for found in named if found.can_generate()), None)
    # BERT's config is a causal class's too, which would have a head that the files of an encoder lack.
    encoder = named and writing is None and getattr(config, "is_decoder", None) is False
    if type(config) in auto._model_mapping.keys() and not encoder:
        return auto
    if writing is not None:
        return writing
    raise UserError(
        f"{folder}/config.json: model_type {config.model_type!r} with architectures {config.architectures} "
        "does not write text; give a causal or an encoder-decoder language model"
    )


def build_meta_model(folder: Path, config: Any) -> Any:
    """Return the model of a config without memory for its tensors, ties made."""
    auto = auto_class(folder, config)
    with as_user_error(folder, "model of config.json", "correct config.json"), torch.device("meta"):
        model = auto.from_config(config) if hasattr(auto, "from_config") else auto._from_config(config)
        model.tie_weights()
        return model


def _vocabulary_sizes(config: Any) -> set[int]:
    """Every number that config.json calls a vocabulary size, such as vocab_size_per_layer_input."""
    values = {**config.to_dict(), **config.get_text_config().to_dict()}
    return {value for key, value in values.items() if "vocab_size" in key and isinstance(value, int)}


def _rows_elsewhere(model: torch.nn.Module, rows: int, sizes: set[int]) -> set[int]:
    """Parameters of the embedding and linear modules that have one row per token id."""
    found: set[int] = set()
    for module in model.modules():
        embedding = isinstance(module, torch.nn.Embedding) and module.num_embeddings in {rows, *sizes}
        if embedding or isinstance(module, torch.nn.Linear) and module.out_features == rows:
            found |= {id(parameter) for parameter in module.parameters()}
    return found


def _stored_name(name: str, tensors: dict[str, Any], stored: Mapping[str, Tensor]) -> str:
    """The checkpoint's own spelling of a module's tensor: same last parts, or the only one of its shape."""
    if name in stored:
        return name
    shape = tuple(tensors[name].shape)
    others = [other for other in sorted(stored) if other not in tensors and stored[other].shape == shape]
    tail = "." + ".".join(name.split(".")[-2:])
    same_tail = [other for other in others if f".{other}".endswith(tail)]
    return next((found[0] for found in (same_tail, others) if len(found) == 1), name)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Compare two stored matrices block by block, because they may be larger than memory."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    rows = range(one.shape[0])
    return all((a == b).all() for a, b in zip(read_rows(one, rows), read_rows(other, rows), strict=True))
