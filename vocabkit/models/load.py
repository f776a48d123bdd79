"""Load a model, find its vocabulary tensors, say how it reads a conversation.

Reads an ordinary Hugging Face folder (config.json, tokenizer.json, generation_config.json, weights), writes
nothing. Code that comes with a checkpoint is never run, and nothing is downloaded.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import AutoTokenizer

from vocabkit.checkpoint.folder import start_token
from vocabkit.checkpoint.hub import model_folder
from vocabkit.checkpoint.meta_model import as_user_error, auto_class, build_meta_model, read_config
from vocabkit.errors import UserError, one_line
from vocabkit.files import read_json_object
from vocabkit.tokenizer.chat_template import Message, check_bounds

# bfloat16 is emulated on most CPUs: a small model answers several times faster in float32 and still fits.
SMALL_PARAMETERS = 1_000_000_000


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
    check_bounds(folder)
    with as_user_error(folder, "tokenizer", "copy the tokenizer files from the original model again"):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def load_model(
    path: str | Path, *, dtype: str | None = None, device: str | None = None, attention: str | None = None
) -> Any:
    """Return the folder's model in eval mode on device (default: the first GPU, else the CPU).

    dtype None is the checkpoint's own, except float32 for a model of less than 1 B parameters on a CPU;
    describe() tells what was chosen. attention None is transformers' choice. A missing or misshapen tensor is
    a UserError, never a random row.
    """
    folder = model_folder(path)
    config = read_config(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    quantized = getattr(config, "quantization_config", None) is not None
    if dtype is None and device == "cpu" and not quantized:
        size = sum(parameter.numel() for parameter in build_meta_model(folder, config).parameters())
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
    if quantized:
        next_step = "install what its quantization needs, or use the unquantized model"
    if attention is not None:
        next_step += f", or leave out --attn_implementation {attention}"
    with as_user_error(folder, "model", next_step):
        model, report = auto_class(folder, config).from_pretrained(
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


def describe(model: Any) -> str:
    """Return one line for people: type, size, number type and device of a loaded model."""
    size = sum(parameter.numel() for parameter in model.parameters())
    number_type = str(model.dtype).removeprefix("torch.")
    line = f"{model.config.model_type}, {size / 1e6:,.1f} M parameters, {number_type} on {model.device}"
    if number_type == "float32" and model.device.type == "cpu" and size < SMALL_PARAMETERS:
        line += " (16-bit numbers are slow on CPUs)"
    return line


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


BATCH = 256  # sequences of some tokens that a model reads at once


@torch.inference_mode()
def last_hidden_states(folder: Path, sequences: Iterable[Sequence[int]]) -> np.ndarray:
    """Return (n, H) float32: the last hidden state at the end of each id sequence, after a start token.

    Loads the model; sequences of one length are read together.
    """
    start = start_token(folder)
    sequences = [[start, *ids] for ids in sequences]
    by_length: dict[int, list[int]] = {}
    for at, ids in enumerate(sequences):
        by_length.setdefault(len(ids), []).append(at)
    model = load_model(folder)
    states: dict[int, np.ndarray] = {}
    bar = tqdm(total=len(sequences), desc="hidden states", leave=False, disable=None)
    for places in by_length.values():
        for first in range(0, len(places), BATCH):
            batch = places[first : first + BATCH]
            inputs = torch.tensor([sequences[at] for at in batch], device=model.device)
            output = model.base_model(input_ids=inputs, use_cache=False)  # without the head: no logits
            states |= dict(zip(batch, output.last_hidden_state[:, -1].float().cpu().numpy(), strict=True))
            bar.update(len(batch))
    bar.close()
    return np.stack([states[at] for at in range(len(sequences))])
