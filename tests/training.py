"""Runs of finetune_qwen.py on tiny checkpoints: made, killed, refused, looked at."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import build
import pytest
import torch
from safetensors.torch import load_file
from tiny import SENTENCES

import finetune_qwen
import model_edit
from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.train.trainer import StageTrainer

WORDS = ["hôm nay", "thanh điệu", "Tiếng Việt", "hợp sức"]

TEXTS = [
    *SENTENCES[:6],
    "Hôm nay trời đẹp, hôm nay hợp sức.",
    "Một Tiếng Việt giàu thanh điệu, hôm nay thế.",
] * 4

# Texts and conversations

VI = "Hôm nay trời đẹp quá, chúng ta đi chơi nhé!"
EN = "The weather is fine today, let us go out."
TURNS = [
    {"role": "user", "content": "Xin chào"},
    {"role": "assistant", "content": "Chào bạn 😀!"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Tạm biệt."},
]
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
UNMARKED = MARKED.replace(
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}",
    "{{ m.content }}<|im_end|>{% generation %}{% endgeneration %}",
)


# Runs

FAST = ["--packing", "none", "--model_max_length", "64", "--per_device_train_batch_size", "4", "--seed", "3"]


def extend(folder: Path, family: str, **options: Any) -> Path:
    """A tiny checkpoint with four new words."""
    torch.set_num_threads(1)
    base = build.make_checkpoint(folder / "base", family, **options)
    (folder / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    out, words = folder / "extended", str(folder / "words.txt")
    model_edit.main(["-m", str(base), "-t", "extend_vocab", "--words", words, "-o", str(out)])
    return out


def argv_of(model: Path, data: Path, out: Path, *flags: str) -> list[str]:
    given = ["--model_name_or_path", str(model), "--data_path", str(data), "--output_dir", str(out), *FAST]
    return [*given, "--eval_share", "0.25", *flags]


def finetune(model: Path, data: Path, out: Path, *flags: str) -> Path:
    assert finetune_qwen.main(argv_of(model, data, out, *flags)) == 0
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


def stage(folder: Path) -> dict[str, Any]:
    return read_json(folder / "vocab_edit.json")["training"][-1]


# Runs that do not end by themselves

RUN = ["--max_steps", "5", "--save_steps", "2", "--lr_scheduler_type", "cosine"]


def killed_run(argv: list[str], at: int) -> None:
    """Run in another process, a fork of this one, that dies of SIGKILL in step `at`."""

    def run() -> None:
        step = StageTrainer.training_step

        def die(self: Any, *args: Any, **options: Any) -> Any:
            if self.state.global_step == at - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, *args, **options)

        StageTrainer.training_step = die  # type: ignore[method-assign]
        finetune_qwen.main(argv)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


# Bad input


def refuse(message: str, model: Path, data: Path, out: Path, *flags: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        finetune(model, data, out, *flags)
    assert "\n" not in str(caught.value)
    assert not out.exists()
