#!/usr/bin/env python3
"""The memory of training a 7B, before and after trimming, by accounting; what new rows cost, measured.

    python3 benchmarks/memory.py                 # the table of configurations, for Qwen2.5-7B
    python3 benchmarks/memory.py --rows          # memory and time of a step on new rows alone, four ways

The first reads the shapes of the model from its settings (below) and runs nothing. The second makes a model
of one layer with 101,056 rows of 640 in float32 and takes steps on 1,024 new rows, each way in a process of
its own (meter.py says what is measured); T is the size of one table. memory_measured.py measures stages.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from meter import STEPS, Meter, held, run  # noqa: E402

from vocabkit.errors import run_cli  # noqa: E402
from vocabkit.train.memory import GIB, Model, Stage  # noqa: E402

H, WIDE, LAYERS, KV = 3584, 18944, 28, 512  # Qwen2.5-7B
LINEAR = ((H, H), (KV, H), (KV, H), (H, H), (WIDE, H), (WIDE, H), (H, WIDE))
LAYER = sum(out * wide for out, wide in LINEAR) + H + 2 * KV + 2 * H
ROWS = (152_064, 101_056)
FULL = {"train_rows": "all", "trained_layers": LAYERS}
CONFIGURATIONS = {
    "full, AdamW fp32 weights and states": dict(FULL, dtype="float32", optim="adamw_torch"),
    "full, AdamW 8-bit, plain loss": dict(FULL, optim="adamw_torch_8bit", fused=False),
    "full, AdamW 8-bit": dict(FULL, optim="adamw_torch_8bit"),
    "full, AdamW 8-bit in backward": dict(FULL, optim="adamw_torch_8bit", in_backward=True),
    "full, Adafactor in backward": dict(FULL, optim="adafactor", in_backward=True),
    "LoRA 64 + all rows, 8-bit": dict(FULL, optim="adamw_torch_8bit", lora_rank=64),
    "2 layers + all rows, 8-bit": dict(train_rows="all", trained_layers=2, optim="adamw_torch_8bit"),
    "2,048 new rows": dict(train_rows="new", trained_layers=0, optim="adamw_torch"),
}
SCHEMES = ("frozen", "split", "peft", "whole")
T_ROWS, T_WIDTH, NEW = 101_056, 640, 1024


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", action="store_true", help="measure what new rows cost (3 GB, minutes)")
    parser.add_argument("--scheme", choices=SCHEMES, help="of --rows: this one, in this process")
    parser.add_argument("--untied", action="store_true", help="of --scheme: a head of its own")
    parser.add_argument("--repeat", type=int, default=3, help="of --rows: runs of each (default: 3)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print one of the two tables."""
    args = build_parser().parse_args(argv)
    if args.scheme:
        print(json.dumps(one_scheme(args.scheme, tied=not args.untied)))
    elif args.rows:
        measure_rows(args.repeat)
    else:
        account()
    return 0


def account() -> None:
    """Print GiB per configuration at 4,096 and 8,192 tokens, for both numbers of rows."""
    print(f"{'GiB, 4,096 / 8,192 tokens':<38}" + "".join(f"{rows:>18,}" for rows in ROWS))
    for name, what in CONFIGURATIONS.items():
        cells = []
        for rows in ROWS:
            model = Model(rows, H, False, (LAYER,) * LAYERS, LINEAR, H, WIDE, new=2048)
            sizes = [
                Stage(model, tokens=n, **{"dtype": "bfloat16", **what}).memory().total / GIB
                for n in (4096, 8192)
            ]
            cells.append(" / ".join(f"{size:.1f}" for size in sizes))
        print(f"{name:<38}" + "".join(f"{cell:>18}" for cell in cells))


def measure_rows(repeat: int) -> None:
    """Print memory above the model's, without that of a step which trains no row, in tables; and times."""
    table = T_ROWS * T_WIDTH * 4
    print(f"T = {table / 2**20:.0f} MiB; memory: tensors (resident, least to most of {repeat}); CPU seconds")
    for kind in ([], ["--untied"]):
        runs: dict[str, list[dict[str, float]]] = {scheme: [] for scheme in SCHEMES}
        for _ in range(repeat):
            for scheme in SCHEMES:  # in turns, so that other work on the machine meets all of them
                runs[scheme].append(run([__file__, "--scheme", scheme, *kind]))
        rest = {what: median(r[what] for r in runs["frozen"]) for what in ("peak", "tensors")}
        least = min(r["seconds"] for r in runs["frozen"])
        for scheme in SCHEMES:
            peaks = [(r["peak"] - rest["peak"]) / table for r in runs[scheme]]
            tensors = (median(r["tensors"] for r in runs[scheme]) - rest["tensors"]) / table
            seconds = min(r["seconds"] for r in runs[scheme])
            print(
                f"{'untied' if kind else 'tied':<8}{scheme:<8}{tensors:>8.3f} T "
                f"({min(peaks):.3f} to {max(peaks):.3f}){seconds:>8.2f} s{seconds / least:>8.2f} x",
                flush=True,
            )


def one_scheme(scheme: str, *, tied: bool) -> dict[str, float]:
    """Take steps of AdamW on new rows; return memory above that of the model, and seconds."""
    import torch
    from peft import TrainableTokensConfig, get_peft_model  # by every scheme: what it holds is no difference
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from vocabkit.models.split_rows import split_rows
    from vocabkit.train.loss import fuse_loss

    config = Qwen2Config(
        vocab_size=T_ROWS, hidden_size=T_WIDTH, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=10, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).requires_grad_(False)
    model_bytes, meter, first = held([model]), Meter(model), T_ROWS - NEW
    if scheme == "split":
        split_rows(model, first=first, stop=T_ROWS)
    elif scheme == "whole":
        model.get_input_embeddings().requires_grad_(True)
        model.get_output_embeddings().requires_grad_(True)
    elif scheme == "frozen":
        model.model.norm.requires_grad_(True)
    if scheme != "peft":  # its head's .weight is the frozen matrix: the fused loss would not train the rows
        fuse_loss(model, n_tokens=T_ROWS)
    else:
        targets = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
        tokens = TrainableTokensConfig(token_indices=[*range(first, T_ROWS)], target_modules=targets)
        model = get_peft_model(model, tokens)
    meter.model = model
    meter.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.randint(first, T_ROWS, (1, 96))
    for _ in range(STEPS):
        meter.begin()
        model(input_ids=ids, labels=ids).loss.backward()
        meter.optimizer.step()
        meter.optimizer.zero_grad()
        meter.end()
    found = meter.result()
    return {**found, "peak": found["peak"] - model_bytes, "tensors": found["tensors"] - model_bytes}


if __name__ == "__main__":
    run_cli(main)
