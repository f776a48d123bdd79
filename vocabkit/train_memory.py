"""How much memory a training stage takes, by accounting: weights, gradients, optimizer, activations, loss.

Reads config.json and the headers of the weights, no tensor; writes nothing. The sums are those of a decoder
in the manner of Qwen2 and Llama; what a library keeps for itself is not in them.

    weights       bytes of the number type × all parameters gradients     bytes of what is trained; stepping
    in the backward pass, of its largest tensor alone optimizer     bytes of its states × parameters trained
    (STATES) activations   checkpointed: L·N·H·2 for the layers' inputs and N·(10·H + 4·I)·2 for the one that
    is run again loss          fused: 64 MiB of logits, and one more gradient of the head where that is
    trained
"""

import argparse
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocabkit.checkpoint import Tensor, read_checkpoint
from vocabkit.errors import UserError
from vocabkit.files import read_json_object
from vocabkit.train_output import new_rows
from vocabkit.vocab_tensors import find_vocab_tensors

GIB = 2**30
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes of optimizer state per trained parameter; Adafactor keeps a row and a column of sums for each matrix.
STATES = {"adamw_torch_8bit": 2.06, "adamw_torch_4bit": 1.06, "adamw_8bit": 2.03, "adamw_bnb_8bit": 2.03,
          "paged_adamw_8bit": 2.03, "lion_8bit": 1.03, "adafactor": 0.01, "sgd": 0}  # fmt: skip
FULL_STATES = 8  # AdamW of float32 parameters: two numbers of four bytes; of bfloat16 ones half of it
LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
CARD_RESERVE = 0.5 * GIB  # of a card, for the driver, kernels and fragments


@dataclass(frozen=True)
class Model:
    """Sizes of a model: parameters of both tables (rows × width), of each layer, of the rest; settings."""

    rows: int
    width: int
    tied: bool
    layers: tuple[int, ...]
    linear: tuple[tuple[int, int], ...]  # (out, in) of the linear modules of one layer
    rest: int
    intermediate: int
    new: int = 0

    @property
    def tables(self) -> int:
        """Parameters of embeddings and head together."""
        return self.rows * self.width * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """Parameters of all."""
        return self.tables + sum(self.layers) + self.rest


@dataclass(frozen=True)
class Memory:
    """Bytes that a stage is expected to take, by what takes them."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float

    @property
    def total(self) -> float:
        """Bytes at the peak."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.loss


def model_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, rows: int, tied: bool) -> Model:
    """Return the sizes of a model from its settings and the shapes of its tensors."""
    layers: dict[int, int] = {}
    linear: list[tuple[int, int]] = []
    rest = 0
    for name, tensor in tensors.items():
        size = 1
        for side in tensor.shape:
            size *= side
        if layer := LAYER.search(f".{name}"):
            layers[int(layer[1])] = layers.get(int(layer[1]), 0) + size
            if int(layer[1]) == 0 and len(tensor.shape) == 2:
                linear.append((tensor.shape[0], tensor.shape[1]))
        elif tensor.shape[:1] != (rows,):
            rest += size
    text = config.get("text_config") or config
    width = text.get("hidden_size") or text["n_embd"]
    intermediate = text.get("intermediate_size") or 4 * width
    return Model(
        rows, width, tied, tuple(layers[at] for at in sorted(layers)), tuple(linear), rest, intermediate
    )


def expect(
    model: Model,
    *,
    dtype: str,
    optim: str,
    tokens: int,
    train_rows: str,
    trained_layers: int,
    lora_rank: int | None = None,
    in_backward: bool = False,
    checkpointing: bool = True,
    fused: bool = True,
) -> Memory:
    """Return the memory of a stage. tokens: in a batch; trained_layers: how many; lora_rank: in these."""
    number = NUMBER_BYTES[dtype]
    tables = model.tables if train_rows == "all" else 0
    layers = sum(model.layers[:trained_layers]) + (model.rest if trained_layers == len(model.layers) else 0)
    adapters = 0
    if lora_rank is not None:
        layers, adapters = 0, trained_layers * lora_rank * sum(out + wide for out, wide in model.linear)
    new = model.new * model.width * (1 if model.tied else 2) if train_rows == "new" else 0
    whole = tables + layers
    state = STATES.get(optim, FULL_STATES if dtype == "float32" else FULL_STATES / 2)
    own = 4 * (adapters + new)  # parameters of float32, whatever the model's type
    gradients: float = number * whole + own
    largest = model.rows * model.width if tables else max((a * b for a, b in model.linear), default=0)
    if in_backward:
        gradients = number * largest if whole else 0
    half = tokens * model.width * number
    layer = tokens * (10 * model.width + 4 * model.intermediate) * number
    activations = len(model.layers) * half + layer if checkpointing else len(model.layers) * (layer + half)
    loss = 64 << 20 if fused else tokens * model.rows * (8 + number)
    if fused and tables:
        loss += model.rows * model.width * number  # the chunks' sum, beside the gradient it is added to
    return Memory(
        number * model.parameters + own, gradients, state * (whole + adapters + new), activations, loss
    )


def one_of(memory: Memory, processes: int) -> Memory:
    """Return what each of so many processes takes under FSDP, beside the layer that it gathers."""
    parts = {name: getattr(memory, name) / processes for name in ("weights", "gradients", "optimizer")}
    return dataclasses.replace(memory, **parts)


def print_expectation(folder: Path, args: argparse.Namespace, settings: Any, *, dtype: str) -> Memory:
    """Print and return the memory that a run on this folder is expected to take."""
    config, checkpoint = read_json_object(folder / "config.json"), read_checkpoint(folder)
    found = find_vocab_tensors(checkpoint, config)
    sizes = model_sizes(config, checkpoint.tensors, rows=found.rows, tied=found.tied)
    added = new_rows(folder)
    sizes = Model(**{**sizes.__dict__, "new": len(added) if added else 0})
    layers = len(sizes.layers) if args.finetune_layers == "all" else len(args.finetune_layers.split())
    memory = expect(
        sizes, dtype=dtype, optim=str(getattr(settings.optim, "value", settings.optim)),
        tokens=settings.per_device_train_batch_size * args.model_max_length, train_rows=args.train_rows,
        trained_layers=0 if args.finetune_layers == "none" else min(layers, len(sizes.layers)),
        lora_rank=args.lora_rank, in_backward=args.optim_in_backward,
        checkpointing=settings.activation_checkpointing or settings.gradient_checkpointing,
    )  # fmt: skip
    if settings.fsdp:
        memory = one_of(memory, settings.world_size)
    parts = "  ".join(f"{name} {value / GIB:.2f}" for name, value in memory.__dict__.items())
    print(f"memory    {memory.total / GIB:>10.2f} GiB expected: {parts}")
    return memory


def check_fits(memory: Memory, args: argparse.Namespace, settings: Any) -> None:
    """Raise UserError, with the flags to change, if a device has less memory than is expected."""
    there = available(settings.device)
    if there is None or memory.total <= there:
        return
    flags = []
    if memory.optimizer > 0.1 * memory.total and "bit" not in str(settings.optim):
        flags.append("--optim adamw_torch_8bit")
    if memory.gradients > 0.1 * memory.total and not args.optim_in_backward:
        flags.append("--optim_in_backward")
    if not settings.activation_checkpointing:
        flags.append("--activation_checkpointing true")
    if settings.per_device_train_batch_size > 1:
        flags.append("--per_device_train_batch_size 1")
    if args.finetune_layers == "all" and args.lora_rank is None:
        flags.append("--lora_rank 64")
    flags.append(f"--model_max_length {args.model_max_length // 2}")
    raise UserError(
        f"{args.model_name_or_path} needs about {memory.total / GIB:.1f} GiB, {settings.device} has "
        f"{there / GIB:.1f} GiB free; give {' or '.join(flags)} (or --ignore_memory)"
    )


def available(device: Any) -> float | None:
    """Return the bytes that are free on a device; None where that is not known."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0] - CARD_RESERVE
    path = Path("/proc/meminfo")
    if device.type != "cpu" or not path.is_file():
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", path.read_text(encoding="utf-8"), re.MULTILINE)
    return float(found[1]) * 1024 if found else None
