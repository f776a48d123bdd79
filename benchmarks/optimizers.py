#!/usr/bin/env python3
"""Why the default optimizer on a GPU rounds at random: how many weights move in bfloat16 at a small rate.

Reads a model and a .jsonl file of texts; writes nothing. Every arm starts from the same weights, rounded to
bfloat16, and takes the same batches in the same order; losses are those of 100 texts that were trained on and
of 100 of the held-out file, computed in float32 whatever the arm's numbers are. Arms of torchao are left out,
and named, where it is not installed.

    python3 benchmarks/optimizers.py
    python3 benchmarks/optimizers.py --model MODEL --train vi.jsonl --test held_out.jsonl --rate 5e-5
"""

import argparse
import copy
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from vocabkit.errors import run_cli  # noqa: E402

BATCH, LENGTH = 4, 128  # texts of a step, tokens of a text


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, demo = parser.add_argument, ROOT / "data" / "demo"
    add("--model", type=Path, default=demo, help="checkpoint folder (default: the demo)")
    add("--train", type=Path, default=demo / "train_texts.jsonl", help="texts to train on")
    add("--test", type=Path, default=demo / "heldout_texts.jsonl", help="texts the loss is measured on")
    add("--steps", type=int, default=20, help="(default: %(default)s)")
    add("--rate", type=float, default=1e-5, help="learning rate, constant (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Train each arm and print its line."""
    args = build_parser().parse_args(argv)
    import torch

    from vocabkit.models.load import load_model, load_tokenizer, silence

    silence()
    tokenizer, start = load_tokenizer(args.model), load_model(args.model, dtype="bfloat16")
    lines = (path.read_text(encoding="utf-8").splitlines() for path in (args.train, args.test))
    read = [[tokenizer(json.loads(line)["text"])["input_ids"][:LENGTH] for line in each] for each in lines]
    train, test = ([ids for ids in texts if len(ids) > 1] for texts in read)
    batches = [[train[(step * BATCH + at) % len(train)] for at in range(BATCH)]
               for step in range(args.steps)]  # fmt: skip
    measured = [sum(batches, [])[:100], test[:100]]
    print(f"{'':<56}{'moved':>8}{'> 0.001':>9}{'loss, trained':>16}{'loss, held out':>16}")
    print_line("before", "", "", start, measured)
    for name, (dtype, make) in arms(start.config.hidden_size).items():
        torch.manual_seed(0)
        model = copy.deepcopy(start).to(dtype)
        before = [p.detach().clone() for p in model.parameters()]
        optimizer = make(model.parameters(), lr=args.rate, weight_decay=0.0)
        for batch in batches:
            loss_of(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        pairs = list(zip(before, model.parameters(), strict=True))
        moved = sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a in before)
        far = sum(int(((a - b.detach()).abs() > 1e-3).sum()) for a, b in pairs)
        print_line(name, f"{moved:.1%}", f"{far:,}", model, measured)
    return 0


def print_line(
    name: str, moved: str, far: str, model: Any, measured: Sequence[Sequence[Sequence[int]]]
) -> None:
    """Print an arm's line: what moved, how many too far, and the losses of its weights on sets of texts."""
    model = copy.deepcopy(model).float()
    losses = [loss_of(model, rows).item() for rows in measured]
    print(f"{name:<56}{moved:>8}{far:>9}" + "".join(f"{loss:>16.4f}" for loss in losses), flush=True)


def loss_of(model: Any, rows: Sequence[Sequence[int]]) -> Any:
    """Return the mean loss of a token of some texts."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    labels = torch.tensor([[*row, *[-100] * (width - len(row))] for row in rows])
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())


def arms(width: int) -> dict[str, tuple[Any, Callable[..., Any]]]:
    """Return name → number type of the weights, and what makes the optimizer."""
    import torch

    plain = torch.optim.AdamW
    found: dict[str, tuple[Any, Callable[..., Any]]] = {"bfloat16, adamw_torch": (torch.bfloat16, plain)}
    if importlib.util.find_spec("torchao") is None:
        print("torchao is not installed: no arms of adamw_torch_8bit", file=sys.stderr)
    else:
        from torchao.optim import AdamW8bit

        apart = math.gcd(width, 256)
        for words, options in (("", {}), (", rounded at random", {"bf16_stochastic_round": True}),
            (f", …, blocks of {apart}", {"bf16_stochastic_round": True, "block_size": apart})):  # fmt: skip
            found[f"bfloat16, adamw_torch_8bit{words}"] = torch.bfloat16, partial(AdamW8bit, **options)
    return found | {"float32, adamw_torch": (torch.float32, plain)}


if __name__ == "__main__":
    run_cli(main)
