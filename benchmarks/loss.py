#!/usr/bin/env python3
"""The fused loss beside the plain one: time, memory and difference of value and gradients, on one head.

    python3 benchmarks/loss.py                  # on a CPU: float32, 1,024 tokens, 95,000 rows of 896
    python3 benchmarks/loss.py --tokens 4096 --width 1536  # on a GPU: the shapes of a 1.5B

Hidden states and head are random and both trained. The ways are taken in turns; time is the median, of the
processor on a CPU and of the clock on a GPU, as shares of the plain loss. Memory is what a step holds beyond
hidden states and head, by torch's own account; on a CPU it is not counted. The last line is JSON.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vocabkit.errors import run_cli  # noqa: E402

CHUNKS = (64, 256, 1024)  # MiB of float32 logits


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rows", type=int, default=94_976, help="of the head (default: %(default)s)")
    parser.add_argument("--width", type=int, default=896, help="of the model (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=1024, help="of a step (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="steps of each way (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Take the steps, print the table; return the exit status."""
    args = build_parser().parse_args(argv)
    import torch
    import torch.nn.functional as F

    from vocabkit.train.loss import summed_nats

    gpu = torch.cuda.is_available()
    device, number = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    torch.manual_seed(0)
    head = torch.nn.Linear(args.width, args.rows, bias=False, dtype=number, device=device)
    hidden = torch.randn(args.tokens, args.width, dtype=number, device=device, requires_grad=True)
    wanted = torch.randint(0, args.rows, (args.tokens,), device=device)

    def fused(chunk: int) -> torch.Tensor:
        return summed_nats(head, hidden, wanted, n_tokens=args.rows, chunk=(chunk << 20) // 4)[0]

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "plain": lambda: F.cross_entropy(head(hidden).float(), wanted, reduction="sum")
    }
    ways |= {f"fused, {chunk} MiB": (lambda chunk=chunk: fused(chunk)) for chunk in CHUNKS}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peak, results = {}, {}
    for _ in range(args.repeat + 1):
        for name, loss in ways.items():
            hidden.grad = head.weight.grad = None
            if gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            clock = time.perf_counter if gpu else time.process_time
            start = clock()
            value = loss()
            value.backward()
            if gpu:
                torch.cuda.synchronize()
                peak[name] = torch.cuda.max_memory_allocated() - held
            seconds[name].append(clock() - start)
            results[name] = (value.detach(), hidden.grad, head.weight.grad)
    table = []
    plain = statistics.median(seconds["plain"][1:])  # the first of each warms up
    for name in ways:
        took = statistics.median(seconds[name][1:])
        off = [
            float((one - other).abs().max() / other.abs().max())
            for one, other in zip(results[name], results["plain"], strict=True)
        ]
        table.append(
            {"way": name, "seconds": took, "of_plain": took / plain, "bytes": peak.get(name), "off": off}
        )
        held = f"{peak[name] / 2**20:9,.0f} MiB" if gpu else ""
        print(f"{name:18}{took:9.4f} s{took / plain:8.2f} x {held}  off by {max(off):.1e}", flush=True)
    facts = {
        "date": f"{date.today()}",
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        **vars(args),
    }
    print(json.dumps(facts | {"table": table}))
    return 0


if __name__ == "__main__":
    run_cli(main)
