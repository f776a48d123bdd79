"""How much memory a training stage takes, by accounting: weights, gradients, optimizer, activations, loss.

Reads config.json and the headers of the weights, no tensor; writes nothing. The sums are those of a decoder
in the manner of Qwen2 and Llama; what a library keeps for itself is not in them.

    weights       bytes of the number type × all parameters (new rows of their own: float32)
    optimizer     bytes of its states × parameters trained (STATES)

are there all the time. The rest comes and goes; what a stage takes is the most of four moments:

    loss          the layers' inputs, L·N·H numbers; logits: fused, a chunk of float32 ones twice, and the
                  gradient of a head that is trained; plain, all of them three times in float32
    layers        their inputs, one layer run again, N·(10·H + 6·I), the head's gradient
    embeddings    all gradients, and one more of the table: where both ends are one matrix they are added
    step          all gradients (in backward: the largest, beside the layers' inputs where it is the head's),
                  and what the optimizer computes with beside its states (TEMPORARIES)

Where gradients are accumulated over batches, all of them are there in every moment.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabkit.checkpoint.record import new_rows
from vocabkit.checkpoint.shards import Tensor, read_checkpoint
from vocabkit.checkpoint.vocab_tensors import find_vocab_tensors
from vocabkit.errors import UserError, reading
from vocabkit.files import read_json_object
from vocabkit.train.options import StageOptions

if TYPE_CHECKING:
    from transformers import TrainingArguments

GIB = 2**30
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes of optimizer state per trained parameter; Adafactor keeps a row and a column of sums for each matrix.
STATES = {"adamw_torch_8bit": 2.06, "adamw_torch_4bit": 1.06, "adamw_8bit": 2.03, "adamw_bnb_8bit": 2.03,
          "paged_adamw_8bit": 2.03, "lion_8bit": 1.03, "adafactor": 0.01, "sgd": 0}  # fmt: skip

FULL_STATES = 8  # AdamW of float32 parameters: two numbers of four bytes; of bfloat16 ones half of it
# Bytes a number that a step holds for the tensor it works on: torchao computes states in float32 before it
# rounds them; Adafactor two matrices, and float32 copies of gradient and parameter where these are not.
TEMPORARIES = {"adamw_torch_8bit": 8, "adamw_torch_4bit": 8, "adafactor": 8}
PLAIN_LOSS = 12  # bytes a logit: float32 logits, their log-softmax, the gradient
SPARE = 0.02  # of all: eight runs on a GPU took up to so much more than these sums
LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")

CHUNK = 64 << 20  # bytes of logits that the fused loss holds at a time (loss.CHUNK, in float32)
LARGEST_CHUNK = 1 << 30  # more of them keep a GPU no busier

# rows/lessons.Settings: tokens of contexts, and places with logits in them
LESSON_TOKENS, LESSON_PLACES = 16 * 50, 16 * 9

LESSON_COPIES = 8  # of these logits in float32, teacher's and student's: as measured
CARD_RESERVE = 0.5 * GIB  # of a card, for the driver, kernels and fragments
SHORTEST = 512  # tokens of a row that check_fits() still suggests


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
    """Bytes that a stage is expected to take at its peak, by what takes them, and when that is.

    step: what the optimizer computes with. moment: loss, layers, embeddings or step.
    """

    moment: str
    weights: float
    optimizer: float
    gradients: float
    activations: float = 0
    loss: float = 0
    step: float = 0

    @property
    def parts(self) -> dict[str, float]:
        """What takes how many bytes."""
        return {name: value for name, value in self.__dict__.items() if name != "moment"}

    @property
    def total(self) -> float:
        """Bytes at the peak, SPARE included."""
        return (1 + SPARE) * sum(self.parts.values())


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


@dataclass(frozen=True)
class Stage:
    """What decides how much memory a run takes: its model, and what is done with it."""

    model: Model
    dtype: str
    optim: str  # as --optim names it
    tokens: int  # in a batch
    train_rows: str
    trained_layers: int  # how many
    lora_rank: int | None = None  # in these layers
    in_backward: bool = False
    accumulates: bool = False  # gradients, over several batches a step
    checkpointing: bool = True
    fused: bool = True
    lessons: bool = False  # --objective distill or both, whose graph is there beside that of the texts
    processes: int = 1  # of FSDP
    chunk: int = CHUNK

    def memory(self) -> Memory:
        """Return what one process takes at its peak, beside the layer that FSDP gathers in it."""
        return max(self._moments(), key=lambda memory: memory.total)

    def _moments(self) -> Iterator[Memory]:
        model, number = self.model, NUMBER_BYTES[self.dtype]
        table = model.rows * model.width if self.train_rows == "all" else 0
        adapters = 0
        layers = sum(model.layers[: self.trained_layers])
        if self.trained_layers == len(model.layers):
            layers += model.rest
        if self.lora_rank is not None:
            each = self.lora_rank * sum(out + wide for out, wide in model.linear)
            layers, adapters = 0, self.trained_layers * each
        new = model.new * model.width * (1 if model.tied else 2) if self.train_rows == "new" else 0
        whole = table * (1 if model.tied else 2) + layers + adapters
        largest = table or (max(out * wide for out, wide in model.linear) if layers else 0)
        states = STATES.get(self.optim)
        full = FULL_STATES if self.dtype == "float32" else FULL_STATES / 2
        weights = number * (model.parameters + adapters) + 4 * new
        optimizer = (full if states is None else states) * whole
        optimizer += (FULL_STATES if states is None else states) * new  # these are float32 always
        gradients = 0 if self.in_backward else number * whole + 4 * new
        before = gradients if self.accumulates else 0  # of batches before this one
        head = number * table
        inputs = len(model.layers) * (self.tokens + self.lessons * LESSON_TOKENS) * model.width * number
        inside = self.tokens * (10 * model.width + 6 * model.intermediate) * number
        if not self.checkpointing:
            inside *= len(model.layers)
        lessons = LESSON_PLACES * model.rows * 4 * LESSON_COPIES if self.lessons else 0
        logits = min(self.chunk, self.tokens * model.rows * 4)
        temporary = TEMPORARIES.get(self.optim, 0) * largest
        if self.optim == "adafactor" and number < 4:
            temporary *= 2
        if self.optim == "adamw_torch":  # on a GPU, one root for all parameters together
            temporary = max(2 * number * largest, number * whole)
        stepped = number * largest if self.in_backward else gradients

        def moment(name: str, gradients: float, **more: float) -> Memory:
            shared = (weights / self.processes, optimizer / self.processes, gradients / self.processes)
            return Memory(name, *shared, **more)

        if self.fused:
            yield moment("loss", before, activations=inputs, loss=2 * logits + head + lessons)
        else:
            plain = self.tokens * model.rows * PLAIN_LOSS
            yield moment("loss", before, activations=inputs, loss=plain + lessons)
        waits = 0 if self.in_backward and not model.tied else head
        yield moment("layers", max(before, waits), activations=inputs + inside)
        yield moment("embeddings", max(gradients, waits) + head)
        untied = self.in_backward and table and not model.tied
        yield moment("step", stepped, activations=inputs if untied else 0, step=temporary / self.processes)


def checkpointing_flag(settings: Any) -> str:
    """Return the flag of TrainingArguments that recomputes activations; it was renamed after 5.17."""
    new, old = "activation_checkpointing", "gradient_checkpointing"
    return new if hasattr(settings, new) else old


def optimizer_name(settings: "TrainingArguments") -> str:
    """Return what --optim names: TrainingArguments hold it as a text or as a member of an enumeration."""
    return str(getattr(settings.optim, "value", settings.optim))


def stage_of(model: Model, options: StageOptions, settings: "TrainingArguments") -> Stage:
    """Return what the flags of a run say about its memory."""
    return Stage(
        model,
        dtype=options.dtype_on(settings.device.type),
        optim=optimizer_name(settings),
        tokens=settings.per_device_train_batch_size * options.model_max_length,
        train_rows=options.train_rows,
        trained_layers=len(options.layers(len(model.layers))),
        lora_rank=options.lora_rank,
        in_backward=options.optim_in_backward,
        accumulates=settings.gradient_accumulation_steps > 1,
        lessons=options.has_lessons,
        checkpointing=bool(
            getattr(settings, checkpointing_flag(settings)) or settings.gradient_checkpointing
        ),
        processes=settings.world_size if settings.fsdp else 1,
    )


def print_expectation(folder: Path, options: StageOptions, settings: "TrainingArguments") -> Stage:
    """Print the memory that a run on this folder is expected to take; return what it was reckoned from."""
    config, checkpoint = read_json_object(folder / "config.json"), read_checkpoint(folder)
    found = find_vocab_tensors(checkpoint)
    with reading(folder / "config.json"):
        sizes = model_sizes(config, checkpoint.tensors, rows=found.rows, tied=found.tied)
    added = new_rows(folder)
    stage = stage_of(replace(sizes, new=len(added) if added else 0), options, settings)
    memory = stage.memory()
    parts = "  ".join(f"{name} {value / GIB:.2f}" for name, value in memory.parts.items() if value)
    print(f"memory    {memory.total / GIB:>10.2f} GiB expected, most at the {memory.moment}: {parts}")
    return stage


def print_chunk(stage: Stage, device: Any) -> int:
    """Return how many logits the loss is to hold at a time, the more the more memory a GPU has, and print for
    how many tokens that is.
    """
    bytes_of = CHUNK
    if device.type == "cuda":
        there, wider = available(device) or 0, LARGEST_CHUNK
        while wider > CHUNK and replace(stage, chunk=wider).memory().total > there:
            wider //= 2
        bytes_of = wider
    places = bytes_of // 4 // stage.model.rows
    at_once = "all tokens at once" if places >= stage.tokens else f"{places:,} tokens at a time"
    print(f"loss      {bytes_of / 2**20:>10,.0f} MiB of logits: {at_once}")
    return bytes_of // 4


def check_fits(stage: Stage, options: StageOptions, settings: "TrainingArguments") -> None:
    """Raise UserError, with flags that make it fit, if a device has less memory than is expected."""
    there, needed = available(settings.device), stage.memory().total
    if there is None or needed <= there:
        return
    flags, less = advice(stage, options, settings, there)
    give = f"give {flags} (about {less / GIB:.1f} GiB), or"
    if less > there:
        give = f"even {flags} needs {less / GIB:.1f} GiB: take a larger device or a smaller model, or"
    raise UserError(
        f"{options.model_name_or_path} needs about {needed / GIB:.1f} GiB, {settings.device} has "
        f"{there / GIB:.1f} GiB free; {give if flags else 'take a larger device, or'} --ignore_memory"
    )


def advice(
    stage: Stage, options: StageOptions, settings: "TrainingArguments", there: float
) -> tuple[str, float]:
    """Return the flags to add so that a stage takes no more than there is, and the bytes it takes then.

    The mildest changes come first and none is named without need; one that saves less than a hundredth is
    no help. Where all together are not enough, they are returned all the same, with what they leave.
    """
    taken: dict[str, Mapping[str, Any]] = {}

    def bytes_with(changes: Mapping[str, Mapping[str, Any]]) -> float:
        changed = {name: value for change in changes.values() for name, value in change.items()}
        return replace(stage, **changed).memory().total

    for flag, change in _changes(stage, options, settings):
        if bytes_with(taken) <= there:
            break
        with_it = {**taken, flag: change}
        if bytes_with(with_it) < 0.99 * bytes_with(taken):
            taken = with_it
    for flag in reversed([*taken]):
        without = {other: change for other, change in taken.items() if other != flag}
        if bytes_with(without) <= max(there, bytes_with(taken)):
            taken = without
    return " ".join(taken), bytes_with(taken)


def _changes(
    stage: Stage, options: StageOptions, settings: "TrainingArguments"
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Flags that save memory, and what each changes in a Stage, the ones that change least first."""
    if settings.per_device_train_batch_size > 1:
        yield "--per_device_train_batch_size 1", {"tokens": options.model_max_length}
    if not stage.checkpointing:
        yield f"--{checkpointing_flag(settings)} true", {"checkpointing": True}
    if stage.dtype == "float32" and settings.device.type == "cuda":
        yield "--dtype bfloat16", {"dtype": "bfloat16"}
    yield "--optim adamw_torch_8bit", {"optim": "adamw_torch_8bit"}
    if not options.optim_in_backward and settings.world_size == 1:
        once = settings.gradient_accumulation_steps == 1
        also = "" if once else " --gradient_accumulation_steps 1"
        yield "--optim_in_backward" + also, {"in_backward": True, "accumulates": False}
    yield "--optim adafactor", {"optim": "adafactor"}
    if options.lora_rank is None and stage.trained_layers:
        yield "--lora_rank 64", {"lora_rank": 64}
    one_row = "--per_device_train_batch_size 1 " if settings.per_device_train_batch_size > 1 else ""
    length = options.model_max_length
    while (length := length // 2) >= SHORTEST:
        yield f"{one_row}--model_max_length {length}", {"tokens": length}
    if options.train_rows == "all":
        fewer = "new" if stage.model.new else "none"
        yield f"--train_rows {fewer}", {"train_rows": fewer}


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
