"""Load a model, find its vocabulary tensors, say how it reads a conversation.

Reads an ordinary Hugging Face folder (config.json, tokenizer.json, generation_config.json, weights), writes
nothing. Code that comes with a checkpoint is never run, and nothing is downloaded.
"""

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from vocabkit.chat import Message, model_folder
from vocabkit.chat import stream_text as stream_text  # needs no torch, so it lives there; public here
from vocabkit.checkpoint import INDEX, SINGLE, Tensor, read_checkpoint, read_rows
from vocabkit.errors import UserError, one_line
from vocabkit.files import read_json_object

# bfloat16 is emulated on most CPUs: a small model answers several times faster in float32 and still fits.
SMALL_PARAMETERS = 1_000_000_000
# attention of a package → how to get it; transformers takes the same from the hub where `kernels` is
# installed
FLASH_PACKAGES = {
    "flash_attention_2": "pip install flash-attn --no-build-isolation, or pip install kernels",
    "flash_attention_3": "pip install kernels",
    "flash_attention_4": "pip install kernels",
}


@dataclass(frozen=True)
class VocabularyTensors:
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


def silence() -> None:
    """Turn off transformers' progress bars and warnings, which would be printed into a conversation."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")


def load_tokenizer(path: str | Path) -> Any:
    """Return the folder's tokenizer as AutoTokenizer builds it; UserError when there is no usable one."""
    folder = model_folder(path)
    read_json_object(folder / "tokenizer.json")
    if (folder / "tokenizer_config.json").exists():
        read_json_object(folder / "tokenizer_config.json")
    with _as_user_error(folder, "tokenizer", "copy the tokenizer files from the original model again"):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def load_model(
    path: str | Path, *, dtype: str | None = None, device: str | None = None, attention: str | None = None
) -> Any:
    """Return the folder's model in eval mode on device (default: the first GPU, else the CPU).

    dtype None is the checkpoint's own, except float32 for a model of less than 1 B parameters on a CPU;
    describe() tells what was chosen. attention None is transformers' choice; check_attention() says which
    others can run. A missing or misshapen tensor is a UserError, never a random row.
    """
    folder = model_folder(path)
    config = _config(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    quantized = getattr(config, "quantization_config", None) is not None
    if dtype is None and device == "cpu" and not quantized:
        size = sum(parameter.numel() for parameter in _meta_model(folder, config).parameters())
        dtype = "float32" if size < SMALL_PARAMETERS else None
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise UserError(f"--dtype {dtype}: not a number type for models; use float32, bfloat16 or float16")
    # transformers 4.56 renamed the argument; the versions before reject the new name.
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    options: dict[str, Any] = {"dtype" if version >= (4, 56) else "torch_dtype": dtype or "auto"}
    if quantized:
        options["device_map"] = {"": device}
    if attention is not None:
        options["attn_implementation"] = attention
    # A .bin is a pickle; every supported version opens it with torch.load(weights_only=True) unless told
    # otherwise.
    next_step = "copy or download the weights again"
    if attention is not None:
        next_step += f", or leave out --attn_implementation {attention}"
    with _as_user_error(folder, "model", next_step):
        model, report = _auto_class(folder, config).from_pretrained(
            str(folder),
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that the report names both shapes; refused right below
            output_loading_info=True,
            **options,
        )
        model = model if quantized else model.to(device)
    for name, stored, wanted in sorted(report["mismatched_keys"]):
        raise UserError(
            f"{folder}: {name} is {tuple(stored)} in the weights but {tuple(wanted)} by config.json; "
            "correct config.json (vocab_size is the number of rows) or copy the matching weights"
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{folder}: {len(missing)} tensors of config.json's model are not in the weights, the first is "
            f"{missing[0]}; copy all weight files of the model again"
        )
    return model.eval()


def check_attention(name: str, *, device: str, dtype: str) -> None:
    """Raise UserError where a model cannot be trained with this attention of transformers."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.utils import import_utils

    has_kernels = importlib.util.find_spec("kernels") is not None
    flag, is_kernel = f"--attn_implementation {name}", "/" in name
    known = ["eager", *(key for key in ALL_ATTENTION_FUNCTIONS.valid_keys() if "paged" not in key)]
    if (
        not (is_kernel and is_flash(name)) and name not in known
    ):  # another kernel might mix documents of a row
        raise UserError(
            f"{flag}: transformers {transformers.__version__} knows {', '.join(known)}, and kernels of "
            "flash-attention such as kernels-community/flash-attn2"
        )
    if is_kernel and not has_kernels:
        raise UserError(f"{flag} is loaded by a package: pip install kernels")
    if name in FLASH_PACKAGES and not has_kernels:
        is_there = getattr(import_utils, f"is_flash_attn_{name[-1]}_available", lambda: False)
        if not is_there():
            raise UserError(f"{flag} needs a GPU and a package: {FLASH_PACKAGES[name]}, or take sdpa")
    if (is_kernel or name in FLASH_PACKAGES) and dtype == "float32":
        raise UserError(f"{flag} computes in 16 bits only: give --dtype bfloat16")
    if name == "flex_attention" and device == "cpu":
        raise UserError(f"{flag} has no backward pass on a CPU: take sdpa, which is as exact")


def is_flash(name: str) -> bool:
    """Return whether an attention is one of flash-attention's, as transformers tells: by its name."""
    return "flash" in name


def describe(model: Any) -> str:
    """Return one line for people: type, size, number type and device of a loaded model."""
    size = sum(parameter.numel() for parameter in model.parameters())
    number_type = str(model.dtype).removeprefix("torch.")
    line = f"{model.config.model_type}, {size / 1e6:,.1f} M parameters, {number_type} on {model.device}"
    if number_type == "float32" and model.device.type == "cpu" and size < SMALL_PARAMETERS:
        line += " (16-bit numbers are slow on CPUs)"
    return line


def vocabulary_tensors(folder: Path, *, stored: Mapping[str, Tensor] | None = None) -> VocabularyTensors:
    """Return which tensors of a checkpoint have one row per token id.

    Builds the model of config.json without memory (meta device). Names and ties are checked against the
    safetensors files where there are any: T5 v1.1 is untied although transformers 5 says tied, and files of
    GPT-2 and GPT-NeoX use other names than the module. stored: instead of the files'; its rows are not read.
    """
    folder = model_folder(folder)
    config = _config(folder)
    model = _meta_model(folder, config)
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
    return VocabularyTensors(**found, tied=tied)


def has_chat_template(tokenizer: Any) -> bool:
    """Return whether the tokenizer's folder says how a conversation is written down."""
    return bool(getattr(tokenizer, "chat_template", None))


def prompt_ids(model: Any, tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the ids that ask the model for the next answer.

    Uses the model's chat template. Without one the contents are joined by line ends and continued as plain
    text; an encoder-decoder model then gets only the system text and the last question.
    """
    if has_chat_template(tokenizer):
        try:
            text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates are programs: each raises what it likes
            hint = "without --system" if messages[0]["role"] == "system" else "another question"
            reason = one_line(error)
            raise UserError(
                f"{tokenizer.name_or_path}: the chat template refuses: {reason}; try {hint}"
            ) from error
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if model.config.is_encoder_decoder:
        messages = [m for m in messages[:-1] if m["role"] == "system"] + list(messages[-1:])
    return list(tokenizer("\n".join(message["content"] for message in messages))["input_ids"])


def context_length(model: Any) -> int | None:
    """Return how many tokens the model can attend to, None where its config sets no limit (T5)."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


@contextlib.contextmanager
def _as_user_error(folder: Path, what: str, next_step: str) -> Iterator[None]:
    """Turn whatever transformers raises for a broken folder (a dozen unrelated types) into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:300]}"
        raise UserError(f"{folder}: cannot load the {what}: {reason}; {next_step}") from error


def _config(folder: Path) -> Any:
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
    with _as_user_error(folder, "config.json", "correct the named value or copy it from the original model"):
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def _auto_class(folder: Path, config: Any) -> Any:
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if type(config) in auto._model_mapping.keys():
        return auto
    for name in config.architectures or []:
        found = getattr(transformers, name, None)
        if found is not None and found.can_generate():
            return found
    raise UserError(
        f"{folder}/config.json: model_type {config.model_type!r} with architectures {config.architectures} "
        "does not write text; give a causal or an encoder-decoder language model"
    )


def _meta_model(folder: Path, config: Any) -> Any:
    auto = _auto_class(folder, config)
    with _as_user_error(folder, "model of config.json", "correct config.json"), torch.device("meta"):
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
