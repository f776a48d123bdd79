"""The flags of a training stage as one record, checked as far as flags alone can tell.

finetune_qwen.py makes it from its arguments; all below train/run.py is given it, or the few fields it needs.
Reads and writes nothing. Standard library only.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError

PACKING = ("none", "concat", "best_fit", "similar")  # train/data/packing.py says what they are


@dataclass(frozen=True)
class StageOptions:
    """What a stage is asked for: a field for each flag of finetune_qwen.py, in its order, None if not given.

    Raises UserError for flags that are wrong, or contradict each other, whatever the model and the data are.
    """

    model_name_or_path: str
    data_path: list[str]
    output_dir: Path
    train_rows: str  # new, all or none
    finetune_layers: str  # all, none or numbers; layers() reads it
    lora_rank: int | None
    lora_alpha: int | None
    no_merge_lora: bool
    no_clamp_norms: bool
    objective: str  # lm, distill or both
    model_max_length: int  # tokens of a row
    packing: str  # one of PACKING
    cross_document: bool
    stage_mix: list[str] | None  # KIND=SHARE; shares() reads it
    text_field: str | None
    eval_path: list[str] | None
    eval_share: float
    cache_dir: Path | None
    dtype: str | None
    attn_implementation: str | None
    optim_in_backward: bool
    ignore_memory: bool
    others: list[str]  # the flags of transformers.TrainingArguments

    def __post_init__(self) -> None:
        if not 0 <= self.eval_share < 1:
            raise UserError(f"--eval_share is {self.eval_share}, expected 0 to less than 1, such as 0.02")
        if self.has_lessons and not self.rows_alone:
            raise UserError(
                f"--objective {self.objective} is taught by the frozen model: it needs --train_rows new and "
                "--finetune_layers none"
            )
        if self.lora_rank is not None and (self.lora_rank < 1 or self.finetune_layers == "none"):
            raise UserError(
                f"--lora_rank {self.lora_rank} with --finetune_layers {self.finetune_layers}: give a rank of "
                "1 or more, and the layers it trains, such as all"
            )
        self.shares()

    @property
    def has_lessons(self) -> bool:
        """Whether the frozen model teaches the new rows (train/lessons.py)."""
        return self.objective != "lm"

    @property
    def rows_alone(self) -> bool:
        """Whether new rows are all that moves: few numbers, in float32."""
        return self.train_rows == "new" and self.finetune_layers == "none"

    def layers(self, count: int) -> set[int]:
        """Return the numbers of the layers to train, of so many; UserError for one that is not there."""
        if self.finetune_layers in ("all", "none"):
            return set(range(count)) if self.finetune_layers == "all" else set()
        words = self.finetune_layers.replace(",", " ").split()
        wrong = [word for word in words if not (word.isdecimal() and int(word) < count)]
        if wrong or not words:
            raise UserError(
                f"--finetune_layers {self.finetune_layers!r}: {(wrong or ['nothing'])[0]} is no layer of "
                f"this model, which has 0 to {count - 1}; or say all or none"
            )
        return {int(word) for word in words}

    def shares(self) -> dict[str, float]:
        """Return the share of tokens of each kind of data that --stage_mix names."""
        found = {}
        for item in self.stage_mix or []:
            kind, _, share = item.partition("=")
            try:
                found[kind] = float(share)
            except ValueError:
                raise UserError(f"--stage_mix {item}: expected NAME=SHARE, such as vietnamese=0.5") from None
        return found

    def dtype_on(self, device: str) -> str:
        """Return the number type of the weights on a kind of device ("cuda", "cpu", …)."""
        return self.dtype or ("bfloat16" if device == "cuda" else "float32")

    def recorded(self) -> dict[str, Any]:
        """Return the flags as run.json holds them; a run is gone on with by the same ones alone."""
        names = [field.name for field in fields(self) if field.name not in ("ignore_memory", "others")]
        return {**{name: str(getattr(self, name)) for name in names}, "others": self.others}
