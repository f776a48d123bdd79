#!/usr/bin/env python3
"""Segment Vietnamese text with a plain pyvi loop and with ours, both in one run, and compare speed and
results.

    loop     ViTokenizer.tokenize of every sentence, in one process, on the first --sample_mb of the corpus
    segment  Segmenter.segment of the same sentences, equal ones too, in one process
    ours     count_words() on the whole corpus, with one worker and with one a core: reading, segmenting
             each different sentence once, counting. "+ start": with what the same takes on one line (starting
             the workers, loading pyvi), which a large corpus does not notice; the loop has pyvi loaded
             already

In sentences and megabytes of UTF-8 text a second, by the clock. The segmentations of loop and segment are
compared. The last line is the table as JSON.

    python3 benchmarks/words.py
    python3 benchmarks/words.py --corpus my_corpus.jsonl.xz --sample_mb 5
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.errors import UserError, run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--corpus", nargs="+", default=[str(ASSETS / "corpora" / "vi")], help="Vietnamese texts"
    )
    parser.add_argument(
        "--model", type=Path, default=ASSETS / "tokenizers" / "qwen2.5-instruct", help="folder"
    )
    parser.add_argument("--sample_mb", type=float, default=3, help="for the loop (default: 3)")
    return parser


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return what one run takes by the clock, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = build_parser().parse_args(argv)
    from pyvi.ViTokenizer import ViTokenizer

    from vocabkit.corpus.files import find_sources, read_blocks
    from vocabkit.corpus.records import parse_block
    from vocabkit.words.count import BATCH, count_words, sentences
    from vocabkit.words.segment import Segmenter

    sources = find_sources(args.corpus)
    texts = [
        sentence
        for source in sources
        for block in read_blocks(source, text_field=None, notes=lambda note: None)
        for text in parse_block(block, text_field=None)[0]
        for sentence in sentences(text)
        if sentence
    ]
    whole = sum(len(text.encode()) for text in texts) / 1e6
    every = max(1, round(whole / args.sample_mb))
    sample = texts[::every]
    sampled = sum(len(text.encode()) for text in sample) / 1e6
    segmenter = Segmenter()

    def segment() -> None:
        for at in range(0, len(sample), BATCH):
            segmenter.segment(sample[at : at + BATCH])

    def ours(workers: int, *, one_line: bool = False) -> Any:
        with tempfile.TemporaryDirectory() as work:
            line = Path(work) / "line.txt"
            line.write_text(texts[0], encoding="utf-8")
            corpus = find_sources([str(line)]) if one_line else sources
            return count_words(args.model, corpus, progress_file=Path(work) / "p.json", workers=workers)

    rows = {}
    spent, expected = seconds(lambda: [ViTokenizer.tokenize(text) for text in sample])
    rows["loop"] = (spent, len(sample), sampled)
    rows["segment"] = (seconds(segment)[0], len(sample), sampled)
    if segmenter.tokenize(sample) != expected:
        raise UserError("the segmentation differs from that of pyvi; please report it")
    for workers in sorted({1, os.cpu_count() or 1}):
        start = seconds(lambda count=workers: ours(count, one_line=True))[0]
        all_of_it = seconds(lambda count=workers: ours(count))[0]
        rows[f"ours, {workers} + start"] = (all_of_it, len(texts), whole)
        rows[f"ours, {workers}"] = (all_of_it - start, len(texts), whole)
    print(f"{whole:.1f} MB, {len(texts):,} sentences, {len(set(texts)):,} different; sample {sampled:.1f} MB")
    print(f"{'':16}{'sentences/s':>12}{'MB/s':>8}{'× loop':>8}")
    result = {}
    for name, (spent, count, megabytes) in rows.items():
        speed = megabytes / spent
        result[name] = {"sentences_per_s": count / spent, "mb_per_s": speed}
        ratio = speed / result["loop"]["mb_per_s"]
        print(f"{name:16}{count / spent:12,.0f}{speed:8.2f}{ratio:8.1f}")
    about = {"benchmark": "words", "date": f"{date.today()}", "cores": os.cpu_count(), "megabytes": whole}
    print(json.dumps({**about, "rows": result}))
    return 0


if __name__ == "__main__":
    run_cli(main)
