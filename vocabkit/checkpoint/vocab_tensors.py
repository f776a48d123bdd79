"""Which tensors of a checkpoint have one row per token id: its input embeddings, its output head, their bias.

Decided from config.json and the tensors' names. Known architectures stand in a table, so that trimming needs
no torch; any other model class is built on the meta device (checkpoint/meta_model.py) and asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vocabkit.checkpoint.quantized import PLAIN
from vocabkit.checkpoint.shards import Checkpoint, Tensor
from vocabkit.errors import UserError
from vocabkit.files import read_json_object
from vocabkit.tokenizer.settings import vocab_size_of

# model_type → (names of input embeddings, names of output heads); what a checkpoint lacks of them is tied.
_DECODER = (("model.embed_tokens.weight",), ("lm_head.weight", "lm_head.bias"))
_T5 = (("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), ("lm_head.weight",))
_GPT2 = (("transformer.wte.weight", "wte.weight"), ("lm_head.weight",))
LAYOUTS = {
    **dict.fromkeys(
        ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "llama", "mistral", "mixtral", "gemma", "gemma2",
         "gemma3_text", "phi", "phi3", "olmo", "olmo2", "granite", "starcoder2", "stablelm", "smollm3"),
        _DECODER,
    ),
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    "gpt2": _GPT2,
}  # fmt: skip


@dataclass(frozen=True)
class VocabTensors:
    """The tensors with one row per token id, input first; rows: how many; tied: the input rows are the
    output's too.
    """

    embed: list[Tensor]
    head: list[Tensor]
    rows: int
    tied: bool

    @property
    def names(self) -> set[str]:
        """Names of all of them."""
        return {tensor.name for tensor in (*self.embed, *self.head)}


def find_vocab_tensors(checkpoint: Checkpoint) -> VocabTensors:
    """Return the vocabulary tensors of a checkpoint.

    Raises UserError if there are none, if their rows are not vocab_size, if they are quantized, or if another
    tensor of an unknown architecture is as long as the vocabulary.
    """
    config_path = checkpoint.folder / "config.json"
    config = read_json_object(config_path)
    rows = vocab_size_of(config, path=config_path)
    layout = LAYOUTS.get(config.get("model_type", ""))
    if layout is None:
        layout = _ask_the_model(checkpoint, rows)
    embed, head = (
        [checkpoint.tensors[name] for name in names if name in checkpoint.tensors] for names in layout
    )
    if not embed:
        raise UserError(
            f"{checkpoint.folder} has no tensor named {' or '.join(layout[0])}, which model_type "
            f"{config.get('model_type')!r} needs; is this the folder of a complete checkpoint?"
        )
    for tensor in (*embed, *head):
        found = tensor.shape[0] if tensor.shape else 0
        if found != rows:
            raise UserError(
                f"{tensor.file}: {tensor.name} has {found:,} rows, {config_path} says vocab_size {rows:,}; "
                "the two files belong to different models: download both again"
            )
        _refuse_quantized(checkpoint, tensor)
    tied = not any(tensor.name.endswith(".weight") for tensor in head)
    if tied and _says_untied(config):
        quantized = [name for name in checkpoint.tensors if name.startswith("lm_head.")]
        raise UserError(
            f"{config_path} says tie_word_embeddings false, but {checkpoint.folder} has "
            f"{quantized[0] if quantized else 'no output head'}, expected one of {', '.join(layout[1])}; "
            "use a complete checkpoint whose head is not quantized"
        )
    return VocabTensors(embed, head, rows, tied)


def _says_untied(config: Mapping[str, Any]) -> bool:
    text_config = config.get("text_config")
    inner = text_config.get("tie_word_embeddings") if isinstance(text_config, Mapping) else None
    return config.get("tie_word_embeddings", inner) is False


def _refuse_quantized(checkpoint: Checkpoint, tensor: Tensor) -> None:
    """Raise UserError if a tensor of the same module holds scales or packed weights, which rows cannot be cut
    from.
    """
    module = tensor.name.rpartition(".")[0] + "."
    others = [
        name
        for name in checkpoint.tensors
        if name.startswith(module) and name not in (module + "weight", module + "bias")
    ]
    if others or tensor.dtype not in PLAIN:
        raise UserError(
            f"{tensor.file}: {tensor.name} is quantized ({others[0] if others else tensor.dtype}), expected "
            "plain BF16, F16 or F32 rows; use a checkpoint whose embeddings and head are not quantized"
        )


def _ask_the_model(checkpoint: Checkpoint, rows: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from vocabkit.checkpoint.meta_model import tensor_names

    names = tensor_names(checkpoint.folder, stored=checkpoint.tensors)
    known = {*names.input, *names.output, *names.bias}
    unknown = [name for name in names.unknown if name in checkpoint.tensors]
    unknown += [n for n, t in checkpoint.tensors.items() if n not in known and t.shape and t.shape[0] == rows]
    if unknown:
        raise UserError(
            f"{checkpoint.folder}: {unknown[0]} has one row per token too ({rows:,}), and it is not known "
            "how to trim it; this architecture is not supported"
        )
    bias_of_head = tuple(name for name in names.bias if name not in names.input)
    return names.input, (*(n for n in names.output if n not in names.input), *bias_of_head)
