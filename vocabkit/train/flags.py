"""What flags mean to transformers: TrainingArguments with defaults that fit what they run on, and attention.

What a stage cannot do is refused with the reason before any weight or text is read: whatever is let through
goes on after a kill to the weights of an unbroken run. Reads config.json of the model, writes nothing.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from vocabkit.errors import UserError, one_line
from vocabkit.files import read_json_object
from vocabkit.train.memory import checkpointing_flag, optimizer_name
from vocabkit.train.options import StageOptions

TORCHAO = ("adamw_torch_8bit", "adamw_torch_4bit")  # states of few bits, rounded at random to bfloat16
BLOCK = 256  # numbers that share a scale there unless told otherwise
_PICKLED = "its state holds objects that torch.load() refuses, so a checkpoint of it cannot be gone on from"
_FORGOTTEN = "it keeps its state outside of checkpoints: a run that goes on from one would begin it anew"
_SMALL = "--optim adamw_torch_8bit, whose state is 2 bytes a weight, with --optim_in_backward"
# Beginning of the name → why not, and what instead. The first that fits; longer ones stand before shorter.
REFUSED = {
    "galore_adamw_layerwise": (_FORGOTTEN, _SMALL),
    "galore_adamw_8bit_layerwise": (_FORGOTTEN, _SMALL),
    "galore_adafactor_layerwise": (_FORGOTTEN, _SMALL),
    "galore": (_PICKLED, "--optim adamw_torch_8bit or adafactor, or --lora_rank 64"),
    "apollo_adamw_layerwise": (_FORGOTTEN, _SMALL),
    "apollo": (_PICKLED, "--optim adamw_torch_8bit or adafactor, or --lora_rank 64"),
    "adalomo": (_FORGOTTEN, "--optim adafactor --optim_in_backward, which has the same state"),
    "grokadamw": (
        "a run that goes on from a checkpoint of it ends with other weights",
        "--optim adamw_torch",
    ),
}

# attention of a package → how to get it; `kernels` brings the same from the hub
FLASH_PACKAGES = {
    "flash_attention_2": "pip install flash-attn --no-build-isolation, or pip install kernels",
    "flash_attention_3": "pip install kernels",
    "flash_attention_4": "pip install kernels",
}


def training_arguments(options: StageOptions, *, part: Path) -> TrainingArguments:
    """Return TrainingArguments from the flags that are not ours, with defaults that fit what they run on."""
    cuda = torch.cuda.is_available()
    eight_bits = cuda and options.dtype != "float32" and not options.rows_alone
    kind: Any = TrainingArguments
    parser = transformers.HfArgumentParser(kind, allow_abbrev=False)
    defaults: dict[str, Any] = {
        "output_dir": str(part),
        "per_device_train_batch_size": 1 if cuda else 4,
        "per_device_eval_batch_size": 1 if cuda else 4,
        "learning_rate": 1e-3 if options.rows_alone else 1e-5,
        "num_train_epochs": 1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,  # a share of all steps
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # it would hide what training_step() stops at
        "save_steps": 200,
        "save_total_limit": 2,
        "eval_strategy": "no",
        checkpointing_flag(kind): cuda,
        "optim": "adamw_torch_8bit" if eight_bits else "adamw_torch",
        "optim_args": "bf16_stochastic_round=True" if eight_bits else None,
        "remove_unused_columns": False,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": False,  # whatever is trained is in every forward()
        "ddp_timeout": 6 * 3600,  # seconds: the other processes wait while the first tokenizes
        "report_to": "none",
    }
    if options.optim_in_backward:
        defaults["max_grad_norm"] = 0.0
    parser.set_defaults(**defaults)
    try:
        (settings,) = parser.parse_args_into_dataclasses(args=options.others)
    except ValueError as error:
        raise UserError(f"{one_line(error)}; see --help and transformers.TrainingArguments") from None
    settings.output_dir = str(part)  # whatever stands among the others
    # More in one process would be DataParallel: several processes are faster.
    settings._n_gpu = min(settings.n_gpu, 1)
    check_settings(settings, in_backward=options.optim_in_backward)
    return settings


def keep_rows_apart(settings: TrainingArguments, folder: Path) -> None:
    """Let torchao's AdamW scale the states of a row apart from its neighbours', where no block_size is given.

    It rounds 256 numbers with one scale. Where they are of two rows, a frequent token and a rare one, the
    rare one's squares round to zero, and its steps are hundreds of times too long (benchmarks/optimizers.py).
    """
    if optimizer_name(settings) in TORCHAO:
        config = read_json_object(folder / "config.json")
        text = config.get("text_config") or config
        if "block_size" not in (settings.optim_args or "") and "hidden_size" in text:
            size = f"block_size={math.gcd(text['hidden_size'], BLOCK)}"
            settings.optim_args = ",".join(filter(None, [settings.optim_args, size]))


def check_settings(settings: TrainingArguments, *, in_backward: bool) -> None:
    """Raise UserError for a setting that would train something else than it says, or not go on after a kill.

    settings: TrainingArguments. in_backward: whether the optimizer is to step in the backward pass.
    """
    optimizer = optimizer_name(settings)
    for name, (reason, instead) in REFUSED.items():
        if optimizer.startswith(name):
            raise UserError(f"--optim {optimizer}: {reason}; give {instead}")
    if optimizer in TORCHAO and importlib.util.find_spec("torchao") is None:
        raise UserError(
            f"--optim {optimizer} is torchao's, which is not installed: pip install torchao, or take "
            "--optim adamw_torch --dtype float32"
        )
    try:  # before anything else is done: the Trainer would make them after the model is loaded
        for callback in get_reporting_integration_callbacks(settings.report_to):
            callback()
    except (ImportError, RuntimeError, ValueError) as error:
        given = " ".join(settings.report_to or [])
        raise UserError(f"--report_to {given}: {one_line(error).rstrip('.')}; or leave it out") from None
    if in_backward:
        wrong = {
            "--gradient_accumulation_steps 1": settings.gradient_accumulation_steps != 1,
            "--max_grad_norm 0": settings.max_grad_norm != 0,
            "one process": settings.world_size > 1,
            "no --fsdp": settings.fsdp,
        }
        if found := [flag for flag, is_wrong in wrong.items() if is_wrong]:
            raise UserError(f"--optim_in_backward steps in the backward pass: it needs {', '.join(found)}")
    if settings.fsdp:
        _check_fsdp(settings)


def _check_fsdp(settings: TrainingArguments) -> None:
    from accelerate.state import PartialState

    config: Any = settings.fsdp_config  # a mapping, whatever was given
    if int(config.get("version", 2)) != 2:
        raise UserError("--fsdp_config: version 1 has no parameters of their own to write; leave version out")
    if str(config.get("cpu_ram_efficient_loading", False)).lower() == "true":
        raise UserError(
            "--fsdp_config: with cpu_ram_efficient_loading only one process has the rows that are chosen "
            "from; leave it out"
        )
    if PartialState().distributed_type.value in ("NO", "MULTI_CPU"):
        raise UserError(
            "--fsdp needs a GPU for each of several processes: accelerate launch --multi_gpu finetune_qwen.py"
            " …; without them it would quietly not be used"
        )
    if config.get("activation_checkpointing"):
        setattr(
            settings, checkpointing_flag(settings), False
        )  # a default on a GPU; FSDP's own is the better one


def check_attention(name: str, *, device: str, dtype: str) -> None:
    """Raise UserError where a model cannot be trained with this attention of transformers."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.utils import import_utils

    has_kernels = importlib.util.find_spec("kernels") is not None
    flag, is_kernel = f"--attn_implementation {name}", "/" in name
    known = ["eager", *(key for key in ALL_ATTENTION_FUNCTIONS.valid_keys() if "paged" not in key)]
    if name not in known and not (is_kernel and is_flash(name)):  # others might mix documents of a row
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
