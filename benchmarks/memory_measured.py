#!/usr/bin/env python3
"""The memory and time of training stages, measured, beside what vocabkit/train/memory.py expects.

    python3 benchmarks/memory_measured.py MODEL MODEL__trimm_vocab
    python3 benchmarks/memory_measured.py MODEL__extend_vocab --only "new rows" --tokens 4096

A few real steps each way, with the parts, the loss and the Trainer of finetune_qwen.py, each in a process of
its own (meter.py says what is measured), on one row of random tokens; activations are checkpointed. Writes
nothing that stays. Configurations whose optimizer is not installed (torchao) are left out, those of new rows
run only where the folder has some.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from meter import STEPS, Meter, run  # noqa: E402

from vocabkit.errors import run_cli  # noqa: E402

WHOLE = "--train_rows all --finetune_layers all "
CONFIGURATIONS = {
    "full, AdamW": WHOLE + "--optim adamw_torch",
    "full, AdamW in backward": WHOLE + "--optim adamw_torch --optim_in_backward",
    "full, AdamW 8-bit in backward": WHOLE + "--optim adamw_torch_8bit --optim_in_backward",
    "full, Adafactor in backward": WHOLE + "--optim adafactor --optim_in_backward",
    "LoRA 64 + all rows": WHOLE + "--optim adamw_torch --lora_rank 64",
    "LoRA 64 + all rows, 8-bit": WHOLE + "--optim adamw_torch_8bit --lora_rank 64",
    "2 layers + all rows": "--train_rows all --finetune_layers 0,1 --optim adamw_torch",
    "new rows": "--train_rows new --finetune_layers none --optim adamw_torch",
}
ALWAYS = (
    f"--max_steps {STEPS} --per_device_train_batch_size 1 --activation_checkpointing true --save_strategy no "
    "--logging_strategy no --disable_tqdm true"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--tokens", type=int, default=512, help="of the one row of a step (default: 512)")
    parser.add_argument("--only", default="", metavar="TEXT", help="configurations with this in their name")
    parser.add_argument("--here", choices=CONFIGURATIONS, help="this one, in this process, as JSON")
    parser.add_argument("--plain", action="store_true", help="of --here: the model's own loss")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the table, or measure one of its cells."""
    args = build_parser().parse_args(argv)
    if args.here:
        print(json.dumps(steps(args.models[0], args.here, tokens=args.tokens, plain=args.plain)))
        return 0
    from vocabkit.checkpoint.record import new_rows

    print(f"MiB of {args.tokens} tokens: expected / tensors / resident, seconds of a step")
    print(f"{'':<38}" + "".join(f"{path.name[-32:]:>34}" for path in args.models))
    for name, flags in CONFIGURATIONS.items():
        if args.only not in name or "8bit" in flags and importlib.util.find_spec("torchao") is None:
            continue
        for loss in ("plain", "fused"):
            line = f"{name + ', ' + loss:<38}"
            for path in args.models:
                cell = "–"
                if name != "new rows" or new_rows(path):
                    more = ["--plain"] if loss == "plain" else []
                    cell = format_cell(
                        run([__file__, str(path), "--here", name, "--tokens", str(args.tokens), *more])
                    )
                line += f"{cell:>34}"
            print(line, flush=True)
    return 0


def format_cell(found: dict[str, float]) -> str:
    """Return the numbers of one run as the table shows them."""
    sizes = " / ".join(f"{found[name] / 2**20:,.0f}" for name in ("expected", "tensors", "peak"))
    return f"{sizes}{found['seconds']:>7.2f}"


def steps(folder: Path, name: str, *, tokens: int, plain: bool) -> dict[str, float]:
    """Take STEPS steps of a stage, as vocabkit/train/run.py does; return what they took and what was
    expected.
    """
    import torch
    import transformers

    import finetune_qwen
    from vocabkit.checkpoint.record import new_rows
    from vocabkit.models.load import load_model, load_tokenizer, silence
    from vocabkit.train.data.packing import Collator
    from vocabkit.train.data.samples import IGNORED
    from vocabkit.train.flags import training_arguments
    from vocabkit.train.loss import fuse_loss
    from vocabkit.train.memory import print_expectation
    from vocabkit.train.parts import choose_parts
    from vocabkit.train.run import token_count
    from vocabkit.train.trainer import StageTrainer

    class EachStep(transformers.TrainerCallback):
        """Meters the steps of the Trainer."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **of: Any) -> None:
            self.meter = Meter(of["model"], of["optimizer"])

        def on_step_begin(self, args: Any, state: Any, control: Any, **of: Any) -> None:
            self.meter.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **of: Any) -> None:
            self.meter.end()

    silence()
    with tempfile.TemporaryDirectory() as scratch:
        given = ["--model_name_or_path", str(folder), "--data_path", "-", "--output_dir", scratch]
        given += ["--model_max_length", str(tokens), *CONFIGURATIONS[name].split(), *ALWAYS.split()]
        options = finetune_qwen.read_options(given)
        settings = training_arguments(options, part=Path(scratch))
        stage = replace(print_expectation(folder, options, settings), fused=not plain)
        model = load_model(folder, dtype=stage.dtype, device=str(settings.device)).train()
        rows = new_rows(folder)
        n_tokens = rows.stop if rows else token_count(load_tokenizer(folder), model)
        parts = choose_parts(model, folder, options, new_rows=rows, n_tokens=n_tokens)
        if not plain:
            fuse_loss(model, n_tokens=n_tokens)
        ids = torch.randint(0, n_tokens, (STEPS, tokens), generator=torch.Generator().manual_seed(0)).tolist()
        each = EachStep()
        StageTrainer(
            model=model, args=settings, parts=parts, in_backward=options.optim_in_backward, eval_bytes=0,
            data_collator=Collator(0), callbacks=[each],
            train_dataset=[{"input_ids": row, "labels": [IGNORED, *row[1:]], "position_ids": [*range(tokens)],
                            "seq_lengths": [tokens]} for row in ids],
        ).train()  # fmt: skip
    return {"expected": stage.memory().total, **each.meter.result()}


if __name__ == "__main__":
    run_cli(main)
