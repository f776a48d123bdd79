#!/usr/bin/env python3
"""The memory of training a 7B, before and after trimming, by accounting; what new rows cost, measured.

    python3 benchmarks/memory.py                 # the table of configurations, for Qwen2.5-7B
    python3 benchmarks/memory.py --rows          # peak memory of one step on new rows alone, four ways

The first reads the shapes of the model from its settings (below) and runs nothing. The second makes a model
of one layer with 101,056 rows of 896 in float32 and takes one step on 1,024 new rows, each way in a process
of its own; T is the size of one table.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from vocabkit.errors import run_cli
from vocabkit.train_memory import GIB, Model, expect

H, I, LAYERS, KV = 3584, 18944, 28, 512  # Qwen2.5-7B
LINEAR = ((H, H), (KV, H), (KV, H), (H, H), (I, H), (I, H), (H, I))
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
T_ROWS, T_WIDTH, NEW = 101_056, 896, 1024


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", action="store_true", help="measure what new rows cost")
    parser.add_argument("--scheme", choices=SCHEMES, help="of --rows: this one, in this process")
    parser.add_argument("--untied", action="store_true", help="of --rows: a head of its own")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print one of the two tables."""
    args = build_parser().parse_args(argv)
    if args.scheme:
        print(json.dumps(one_step(args.scheme, tied=not args.untied)))
    elif args.rows:
        measure_rows()
    else:
        account()
    return 0


def account() -> None:
    """Print GiB per configuration at 4,096 and 8,192 tokens, for both numbers of rows."""
    print(f"{'GiB, 4,096 / 8,192 tokens':<38}" + "".join(f"{rows:>18,}" for rows in ROWS))
    for name, what in CONFIGURATIONS.items():
        cells = []
        for rows in ROWS:
            model = Model(rows, H, False, (LAYER,) * LAYERS, LINEAR, H, I, new=2048)
            sizes = [
                expect(model, tokens=n, **{"dtype": "bfloat16", **what}).total / GIB for n in (4096, 8192)
            ]
            cells.append(" / ".join(f"{size:.1f}" for size in sizes))
        print(f"{name:<38}" + "".join(f"{cell:>18}" for cell in cells))


def measure_rows() -> None:
    """Print the peak of each scheme above that of a step without any row trained, in tables."""
    table = T_ROWS * T_WIDTH * 4
    print(
        f"{'tables of ' + format(table / 2**20, '.0f') + ' MiB':<22}" + "".join(f"{s:>10}" for s in SCHEMES)
    )
    for kind in ([], ["--untied"]):
        peaks = []
        for scheme in SCHEMES:
            command = [sys.executable, __file__, "--scheme", scheme, *kind]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(json.loads(done.stdout.splitlines()[-1]))
        cells = "".join(f"{(peak - peaks[0]) / table:>10.2f}" for peak in peaks)
        print(f"{'untied' if kind else 'tied':<22}{cells}", flush=True)


def one_step(scheme: str, *, tied: bool) -> int:
    """Take two steps of AdamW on new rows and return the peak of this process in bytes."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from vocabkit.train_loss import fuse_loss
    from vocabkit.train_rows import split_rows

    config = Qwen2Config(
        vocab_size=T_ROWS, hidden_size=T_WIDTH, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).requires_grad_(False)
    first = T_ROWS - NEW
    if scheme == "split":
        split_rows(model, first=first, stop=T_ROWS)
    elif scheme == "whole":
        model.get_input_embeddings().requires_grad_(True)
        model.get_output_embeddings().requires_grad_(True)
    elif scheme == "peft":
        from peft import TrainableTokensConfig, get_peft_model

        targets = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
        tokens = TrainableTokensConfig(token_indices=[*range(first, T_ROWS)], target_modules=targets)
        fuse_loss(model, n_tokens=T_ROWS)
        model = get_peft_model(model, tokens)
    else:
        model.model.norm.requires_grad_(True)
    if scheme != "peft":
        fuse_loss(model, n_tokens=T_ROWS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.randint(first, T_ROWS, (1, 96))
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    run_cli(main)
