#!/usr/bin/env python3
"""Count a corpus's tokens and compare the speed with plain ways, all in one run.

For each tokenizer, in megabytes of UTF-8 text a second, by the clock, all processes and threads allowed:

    read         read_blocks() and parse_block() alone: what reading, decompressing and parsing allow
    loop         one encode() a document and a Counter, in one Python process
    encode_batch the tokenizers library on all cores, 512 documents a call, and a Counter
    ours         count_corpus() with a worker for each core, its start and the encoding of the words included

Loop and encode_batch get the first --sample_mb of the corpus only: their speed does not depend on the amount.
Ours gets all of it; it gains from more, since a corpus repeats itself. The counts of ours are compared with
those of encode_batch where both saw the same. The last line is the table as JSON.

    python3 benchmarks/count.py
    python3 benchmarks/count.py --tokenizers qwen2.5-instruct --corpus my_corpus.jsonl.xz
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.errors import UserError, run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
TOKENIZERS = ("qwen2.5-instruct", "llama-3.2-instruct", "gemma-2-it", "t5-v1_1")
BATCH = 512  # documents


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    corpora = [str(ASSETS / "corpora" / name) for name in ("en", "vi", "envi")]
    parser.add_argument("--corpus", nargs="+", default=corpora, help="default: English, Vietnamese, pairs")
    parser.add_argument(
        "--tokenizers", nargs="+", default=TOKENIZERS, help="folders, or names in $VOCABKIT_ASSETS/tokenizers"
    )
    parser.add_argument("--sample_mb", type=float, default=20, help="for the plain ways (default: 20)")
    parser.add_argument("--runs", type=int, default=3, help="the fastest of so many counts (default: 3)")
    return parser


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return what one run takes by the clock, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the four ways for one tokenizer; speeds in MB of text a second."""
    import numpy as np

    from vocabkit.corpus import find_sources, parse_block, read_blocks
    from vocabkit.count_corpus import count_corpus
    from vocabkit.verify import load_encoder

    sources = find_sources(args.corpus)

    def read() -> list[str]:
        return [
            text
            for source in sources
            for block in read_blocks(source, text_field=None, notes=lambda note: None)
            for text in parse_block(block, text_field=None)[0]
        ]

    read_seconds, texts = seconds(read)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    sample, size = [], 0.0
    for text in texts:
        if size >= args.sample_mb:
            break
        sample.append(text)
        size += len(text.encode()) / 1e6
    whole = len(sample) == len(texts)
    del texts
    encoder = load_encoder(folder)

    def loop() -> Counter[int]:
        counts: Counter[int] = Counter()
        for text in sample:
            counts.update(encoder.encode(text).ids)
        return counts

    def batches() -> Counter[int]:
        counts: Counter[int] = Counter()
        for at in range(0, len(sample), BATCH):
            for encoding in encoder.encode_batch(sample[at : at + BATCH]):
                counts.update(encoding.ids)
        return counts

    def ours() -> Any:
        with tempfile.TemporaryDirectory() as work:
            return count_corpus(folder, args.corpus, progress_file=Path(work) / "progress.json")

    times: dict[str, list[float]] = {"loop": [], "encode_batch": [], "ours": []}
    for _ in range(args.runs):
        for name, run in (("loop", loop), ("encode_batch", batches), ("ours", ours)):
            spent, result = seconds(run)
            times[name].append(spent)
            if name == "encode_batch":
                expected = result
    if whole:
        found = {int(i): int(result.vector[i]) for i in np.flatnonzero(result.vector)}
        if found != dict(expected):
            raise UserError(f"{folder}: the counts differ from those of encode_batch; please report it")
    best = {name: min(spent) for name, spent in times.items()}
    row = {
        "tokenizer": folder.name,
        "megabytes": megabytes,
        "read": megabytes / read_seconds,
        "loop": size / best["loop"],
        "encode_batch": size / best["encode_batch"],
        "ours": megabytes / best["ours"],
        "compared": whole,
        "worker_peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
    }
    return row | {"ours_to_encode_batch": row["ours"] / row["encode_batch"]}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = build_parser().parse_args(argv)
    titles = ("MB", "read", "loop", "batch", "ours")
    print(f"{'tokenizer':24} {' '.join(f'{title:>7}' for title in titles)}  ratio equal  MB/worker")
    rows = []
    for name in args.tokenizers:
        folder = Path(name) if Path(name).is_dir() else ASSETS / "tokenizers" / name
        row = measure(folder, args)
        rows.append(row)
        print(
            f"{row['tokenizer']:24} {row['megabytes']:7.1f} {row['read']:7.1f} {row['loop']:7.1f} "
            f"{row['encode_batch']:7.1f} {row['ours']:7.1f} {row['ours_to_encode_batch']:6.1f} "
            f"{'yes' if row['compared'] else '-':5}  {row['worker_peak_mb']:.0f}"
        )
    print(
        json.dumps({"benchmark": "count", "date": f"{date.today()}", "cores": os.cpu_count(), "rows": rows})
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
