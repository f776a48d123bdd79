#!/usr/bin/env python3
"""Let models answer: as they are, with a mask, with phrases to avoid, trimmed; by transformers and llama.cpp.

Makes checkpoints with the shapes of Qwen2.5, random weights and a real tokenizer, trims them and exports both
as GGUF. Every row of the table is a process of its own (benchmarks/decode_worker.py); the rows take turns,
--runs times. Sampled from the 40 likeliest tokens at temperature 1, a random model writes in all scripts.

    tok/s      best run; with one thread tokens a second of processor time, so that other work does not count
    bound      what the measured bandwidth of memory allows: bandwidth / bytes that a token reads x base
    seconds per token of the first row of its kind / those of this row, in one run; median of runs cost %
    of --only_scripts and --avoid: against plain answers in turn in the same process; median of runs looking %
    of these seconds the part that looks for 200 phrases, none of which is hit; on English text

The last line is the table as JSON. --dir keeps the models for the next time (5 GB for 0.5B, 10 for 1.5B).

    python3 benchmarks/decode.py --sizes 0.5B
    python3 benchmarks/decode.py --sizes 0.5B 1.5B --runs 3 --tokens 64 --threads 2 --dir /mnt/disk/models
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from checkpoints import SIZES, make_checkpoint  # noqa: E402

from vocabkit.errors import UserError, run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
WORKER = ROOT / "benchmarks" / "decode_worker.py"
# row → end of the model's name, option of the worker, row it is compared with
ROWS: dict[str, tuple[str, list[str], str]] = {
    "base": ("", [], "base"),
    "base+mask": ("", ["--mask"], "base"),
    "base+avoid": ("", ["--avoid"], "base"),
    "trimmed": ("__trimm_vocab", [], "base"),
    "gguf": (".{outtype}.gguf", [], "gguf"),
    "gguf+mask": (".{outtype}.gguf", ["--mask"], "gguf"),
    "gguf+avoid": (".{outtype}.gguf", ["--avoid"], "gguf"),
    "gguf-trimmed": ("__trimm_vocab.{outtype}.gguf", [], "gguf"),
}
COLUMNS = [  # title, key of the result, factor, format
    ("size", "size", None, ""), ("row", "row", None, ""), ("type", "kind", None, ""),
    ("MB/token", "bytes_read", 1e-6, ",.0f"), ("tok/s", "tokens_per_second", 1, ".2f"),
    ("bound", "bound", 1, ".2f"), ("x base", "times_base", 1, ".2f"), ("cost %", "cost", 100, "+.1f"),
    ("looking %", "avoid_share", 100, ".2f"), ("English %", "avoid_share_english", 100, ".2f"),
    ("first s", "seconds_to_first", 1, ".2f"), ("peak MB", "peak_mb", 1, ",.0f"),
    ("foreign %", "foreign", 100, ".1f"),
]  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.5B"], help="default: 0.5B")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="default: all")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer (default: 32)")
    parser.add_argument("--answers", type=int, default=3, help="of a process (default: 3)")
    parser.add_argument("--runs", type=int, default=3, help="processes of each row (default: 3)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of a process (default: 1, by processor time; else by the clock)",
    )
    parser.add_argument(
        "--outtype", choices=["q8_0", "f16", "bf16"], default="q8_0",
        help="numbers of the GGUF (default: q8_0, as people run these sizes)",
    )  # fmt: skip
    parser.add_argument("--dir", type=Path, help="keep the models here (default: a temporary folder)")
    parser.add_argument(
        "--tokenizer", type=Path, default=ASSETS / "tokenizers" / "qwen2.5-instruct",
        help="folder with the tokenizer and config.json of a Qwen2.5 (default: the one of $VOCABKIT_ASSETS)",
    )  # fmt: skip
    return parser


def run(command: list[str | Path], threads: int) -> str:
    """Run a program; return its output, or raise UserError with what it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
    )
    if done.returncode:
        raise UserError(f"{command[0]} {command[1]} failed: {done.stderr or done.stdout}")
    return done.stdout


def make_models(place: Path, *, size: str, args: argparse.Namespace) -> Path:
    """Make what is not there yet: the checkpoint, the trimmed one, the GGUF of each; return the first."""
    base = place / f"Qwen2.5-{size}"
    if not base.exists():
        part = base.with_name(base.name + ".part")
        make_checkpoint(part, size=size, tokenizer=args.tokenizer)
        part.rename(base)
    edit = [ROOT / "model_edit.py", "-m"]
    trimmed = base.with_name(base.name + "__trimm_vocab")
    if not trimmed.exists():
        run([*edit, base, "-t", "trimm_vocab", "-o", trimmed], 1)
    for folder in (base, trimmed):
        out = folder.with_name(f"{folder.name}.{args.outtype}.gguf")
        if any(row.startswith("gguf") for row in args.rows) and not out.exists():
            run([*edit, folder, "-t", "export_gguf", "--outtype", args.outtype, "-o", out], 1)
    return base


def run_size(place: Path, *, size: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one size; return its rows of the table."""
    base = make_models(place, size=size, args=args)
    runs: dict[str, list[dict[str, Any]]] = {row: [] for row in args.rows}
    bandwidths = []
    options = ["--threads", str(args.threads)]
    for at in range(args.runs):
        bandwidths.append(json.loads(run([WORKER, "bandwidth", *options], args.threads))["bandwidth"])
        for row in args.rows:
            name, variant, _ = ROWS[row]
            model = base.with_name(base.name + name.format(outtype=args.outtype))
            length = ["--tokens", str(args.tokens), "--answers", str(args.answers)]
            output = run([WORKER, model, *length, *options, *variant], args.threads)
            runs[row].append(json.loads(output.splitlines()[-1]))
            print(f"{size} {row} run {at + 1}: {runs[row][-1]}", file=sys.stderr)
    return [summary(runs, row, size=size, bandwidth=max(bandwidths)) for row in args.rows]


def summary(
    runs: dict[str, list[dict[str, Any]]], row: str, *, size: str, bandwidth: float
) -> dict[str, Any]:
    """Return a row of the table out of the runs of all rows."""
    own, compared = runs[row], runs.get(ROWS[row][2])
    result: dict[str, Any] = {"size": size, "row": row, "kind": own[0]["kind"], "runs": len(own)}
    result["bytes_read"] = own[0]["bytes_read"]
    result["tokens_per_second"] = 1 / min(each["seconds_per_token"] for each in own)
    result["bandwidth"] = bandwidth
    result["bound"] = bandwidth / result["bytes_read"]
    if compared:
        pairs = zip(compared, own, strict=True)
        result["times_base"] = median(a["seconds_per_token"] / b["seconds_per_token"] for a, b in pairs)
    for key in ("cost", "avoid_share", "avoid_share_english", "peak_mb", "foreign"):
        if key in own[0]:
            result[key] = median(each[key] for each in own)
    result["seconds_to_first"] = min(each["seconds_to_first"] for each in own)
    result["hits"] = sum(each.get("hits", 0) for each in own)
    result["tokens"] = sum(each["tokens"] for each in own)
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = build_parser().parse_args(argv)
    if not (args.tokenizer / "tokenizer.json").is_file():
        raise UserError(f"{args.tokenizer} has no tokenizer.json; give a Qwen2.5 folder: --tokenizer FOLDER")
    results = []
    with tempfile.TemporaryDirectory(prefix="vocabkit-decode-") as scratch:
        place = args.dir or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        for size in args.sizes:
            results += run_size(place, size=size, args=args)
    print(" ".join(f"{title:>12}" for title, *_ in COLUMNS))
    for row in results:
        cells = [
            "-" if key not in row else row[key] if factor is None else format(row[key] * factor, style)
            for _, key, factor, style in COLUMNS
        ]
        print(" ".join(f"{cell:>12}" for cell in cells))
    print(
        json.dumps(
            {"benchmark": "decode", "date": f"{date.today()}", "threads": args.threads, "rows": results}
        )
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
