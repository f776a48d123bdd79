#!/usr/bin/env python3
"""Trim checkpoints of real sizes and compare time and memory with `cp -r` and with load-slice-save.

Makes checkpoints with the shapes of Qwen2.5 (bfloat16, random weights) and a real Qwen2.5 tokenizer, then
runs for each size, one after another on the same disk, each in a process of its own:

    cp -r          the least that any program can do: read all bytes, write all bytes
    cp -r, sync    the same until the bytes are on the disk, as trimm_vocab leaves them
    trimm_vocab    python3 model_edit.py -t trimm_vocab, its checks of the result included
    load-slice     from_pretrained, slice embed (and lm_head), save_pretrained: no closure, no checks

Writes below --dir only (it needs room for twice the largest size) and removes all of it. The last line is the
table as JSON.

    python3 benchmarks/trim.py --sizes 0.5B
    python3 benchmarks/trim.py --sizes 0.5B 1.5B 7B --runs 3 --dir /mnt/disk
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from checkpoints import SIZES, make_checkpoint  # noqa: E402

from vocabkit.errors import UserError, run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
COLUMNS = [  # title, key of the result, format
    ("size", "size", ""), ("bytes", "bytes", ".3g"), ("cp s", "cp_seconds", ".1f"),
    ("+sync s", "cp_synced_seconds", ".1f"), ("trim s", "trim_seconds", ".1f"), ("/cp", "trim_to_cp", ".2f"),
    ("/cp+sync", "trim_to_cp_synced", ".2f"), ("CPU s", "trim_cpu_seconds", ".1f"),
    ("MB", "trim_peak_mb", ",.0f"), ("load s", "load_seconds", ".1f"), ("load MB", "load_peak_mb", ",.0f"),
    ("/trim s", "load_to_trim", ".1f"), ("/trim MB", "load_to_trim_peak", ".1f"),
]  # fmt: skip
LOAD_SLICE_SAVE = """
import json, shutil, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM

source, target, edit = map(Path, sys.argv[1:])
kept = json.loads(edit.read_text(encoding="utf-8"))["new_to_old"]
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
for part in {model.get_input_embeddings(), model.get_output_embeddings()}:
    part.weight = torch.nn.Parameter(part.weight.data[kept])
model.tie_weights()
model.config.vocab_size = len(kept)
model.save_pretrained(target)
for path in source.glob("*token*.json"):
    shutil.copy(path, target)
"""


@dataclass(frozen=True)
class Measured:
    """One run of one program. synced_seconds: until the disk had everything; cpu_seconds: of all threads."""

    seconds: float
    synced_seconds: float
    cpu_seconds: float
    peak_mb: float


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="default: all (the 7B takes 30 GB)"
    )
    parser.add_argument("--dir", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument(
        "--tokenizer", type=Path, default=ASSETS / "tokenizers" / "qwen2.5-instruct",
        help="folder with the tokenizer and config.json of a Qwen2.5 (default: the one of $VOCABKIT_ASSETS)",
    )  # fmt: skip
    parser.add_argument("--keep", nargs="+", type=Path, default=[], help="kept lists (default: the bundled)")
    parser.add_argument("--warm", action="store_true", help="read the source before each run, drop no caches")
    parser.add_argument("--runs", type=int, default=1, help="repeat this often, report medians (default: 1)")
    return parser


def measure(command: Sequence[str | Path], *, cold: bool, source: Path, target: Path) -> Measured:
    """Run a command that makes target out of source; UserError with its output if it fails."""
    subprocess.run(["sync"], check=True)
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="utf-8")
    else:  # read the source, so that each program finds the same part of it in memory
        subprocess.run(["cat", *source.iterdir()], stdout=subprocess.DEVNULL, check=True)
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)  # the usage of this process alone
        seconds = time.perf_counter() - start
        subprocess.run(["sync", "-f", str(target.parent)], check=True)
        synced = time.perf_counter() - start
        if status:
            output.seek(0)
            raise UserError(f"{command[0]} {command[1]} failed: {output.read().decode(errors='replace')}")
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(seconds, synced, cpu, usage.ru_maxrss * 1024 / 1e6)  # Linux counts in KiB


def run_size(work: Path, *, name: str, args: argparse.Namespace, cold: bool) -> dict[str, Any]:
    """Make one checkpoint and run everything on it args.runs times; return medians, of ratios too."""
    source, target, edit = work / f"Qwen2.5-{name}", work / "out", work / "vocab_edit.json"
    total = make_checkpoint(source, size=name, tokenizer=args.tokenizer)
    trim = [sys.executable, ROOT / "model_edit.py", "-m", source, "-t", "trimm_vocab", "-o", target]
    commands: dict[str, list[str | Path]] = {
        "cp": ["cp", "-r", source, target],
        "trim": [*trim, *(["--keep", *args.keep] if args.keep else [])],
        "load": [sys.executable, "-c", LOAD_SLICE_SAVE, source, target, edit],
    }
    result: dict[str, Any] = {"size": name, "bytes": total, "runs": args.runs}
    memory = Path("/proc/meminfo").read_text(encoding="ascii").split("MemAvailable:")[1]
    if int(memory.split()[0]) * 1024 < 1.25 * total:  # the weights, the sliced rows, the interpreter
        result["skipped"] = f"load-slice skipped: less than {1.25 * total / 1e9:.1f} GB of memory free"
        del commands["load"]
    runs: dict[str, list[Measured]] = {program: [] for program in commands}
    for _ in range(args.runs):
        for program, command in commands.items():
            runs[program].append(measure(command, cold=cold, source=source, target=target))
            print(f"{name} {program}: {runs[program][-1]}", file=sys.stderr)
            if program == "trim":
                shutil.copyfile(target / "vocab_edit.json", edit)
            shutil.rmtree(target)
    shutil.rmtree(source)
    for program, measured in runs.items():
        for field in fields(Measured):
            result[f"{program}_{field.name}"] = median(getattr(run, field.name) for run in measured)

    def ratio(over: str, under: str, field: str, under_field: str) -> float:
        pairs = zip(runs[over], runs[under], strict=True)
        return median(getattr(a, field) / getattr(b, under_field) for a, b in pairs)

    result["trim_to_cp"] = ratio("trim", "cp", "seconds", "seconds")
    result["trim_to_cp_synced"] = ratio("trim", "cp", "seconds", "synced_seconds")
    if "load" in runs:
        result["load_to_trim"] = ratio("load", "trim", "seconds", "seconds")
        result["load_to_trim_peak"] = ratio("load", "trim", "peak_mb", "peak_mb")
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = build_parser().parse_args(argv)
    if not (args.tokenizer / "tokenizer.json").is_file():
        raise UserError(f"{args.tokenizer} has no tokenizer.json; give a Qwen2.5 folder: --tokenizer FOLDER")
    cold = os.access("/proc/sys/vm/drop_caches", os.W_OK) and not args.warm
    print(f"caches: {'dropped' if cold else 'source read'} before each run")
    results = []
    with tempfile.TemporaryDirectory(prefix="vocabkit-trim-", dir=args.dir) as work:
        for name in args.sizes:
            results.append(run_size(Path(work), name=name, args=args, cold=cold))
    print(" ".join(f"{title:>9}" for title, _, _ in COLUMNS))
    for row in results:
        cells = [format(row[key], style) if key in row else "-" for _, key, style in COLUMNS]
        print(" ".join(f"{cell:>9}" for cell in cells), row.get("skipped", ""))
    print(json.dumps({"benchmark": "trim", "date": f"{date.today()}", "cold": cold, "sizes": results}))
    return 0


if __name__ == "__main__":
    run_cli(main)
