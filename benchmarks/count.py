#!/usr/bin/env python3
"""Count a corpus's tokens and compare the speed with plain ways, all in one run.

For each tokenizer, in megabytes of UTF-8 text a second, by the clock, all processes and threads allowed:

    read         read_blocks() and parse_block() alone: what reading, decompressing and parsing allow
    loop         one encode() a document and a Counter, in one Python process
    encode_batch the tokenizers library on all cores, 512 documents a call, and a Counter
    counter      one TokenCounter in this process: compare with loop, both have one core and no start
    ours         count_corpus() with a worker for each core, its start and the encoding of the words included

The corpus is rewritten as .jsonl with documents of up to 4 KB, the size of a web page's text, which suits
encode_batch. Loop and encode_batch get the first --sample_mb of the corpus only: their speed does not depend
on the amount. Ours gets all of it; it gains from more, since a corpus repeats itself. The counts of ours are
compared with those of encode_batch where both saw the same. The last line is the table as JSON.

    python3 benchmarks/count.py
    python3 benchmarks/count.py --tokenizers qwen2.5-instruct --corpus my_corpus.jsonl.xz
    python3 benchmarks/count.py --code_mb 100
"""

import argparse
import json
import os
import resource
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.errors import UserError, run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
TOKENIZERS = ("qwen2.5-instruct", "llama-3.2-instruct", "gemma-2-it", "t5-v1_1")
BATCH = 512  # documents
DOCUMENT = 4000  # characters


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
    parser.add_argument(
        "--code_mb", type=float, help="instead of --corpus: so much of the Python code installed here"
    )
    parser.add_argument("--sample_mb", type=float, default=20, help="for the plain ways (default: 20)")
    parser.add_argument("--runs", type=int, default=3, help="the fastest of so many counts (default: 3)")
    return parser


def code(megabytes: float) -> Iterator[str]:
    """Yield Python files of this interpreter's libraries, so many megabytes of them."""
    paths = sysconfig.get_paths()
    left = megabytes * 1e6
    for folder in (paths["purelib"], paths["stdlib"]):
        for path in sorted(Path(folder).rglob("*.py")):
            if left <= 0:
                return
            text = path.read_text(encoding="utf-8", errors="ignore")
            left -= len(text.encode())
            yield text


def write_documents(path: Path, texts: Iterable[str]) -> None:
    """Write texts as JSON lines, cut at line ends into documents of up to DOCUMENT characters."""
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            document = ""
            for line in text.splitlines(keepends=True):
                if document and len(document) + len(line) > DOCUMENT:
                    file.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
                    document = ""
                document += line
            file.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")


def read_texts(corpus: Sequence[str]) -> list[str]:
    """Return all texts of a corpus, in this process."""
    from vocabkit.corpus import find_sources, parse_block, read_blocks

    return [
        text
        for source in find_sources(corpus)
        for block in read_blocks(source, text_field=None, notes=lambda note: None)
        for text in parse_block(block, text_field=None)[0]
    ]


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return what one run takes by the clock, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def measure(folder: Path, corpus: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the four ways for one tokenizer; speeds in MB of text a second."""
    import numpy as np

    from vocabkit.count_corpus import count_corpus
    from vocabkit.counts import count_texts
    from vocabkit.cuts import read_recipe
    from vocabkit.verify import load_encoder

    read_seconds, texts = seconds(lambda: read_texts([str(corpus)]))
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

    recipe = read_recipe(folder)

    def counter() -> Any:
        return count_texts(recipe, sample)

    def ours() -> Any:
        with tempfile.TemporaryDirectory() as work:
            return count_corpus(folder, [str(corpus)], progress_file=Path(work) / "progress.json")

    times: dict[str, list[float]] = {"loop": [], "encode_batch": [], "counter": [], "ours": []}
    for _ in range(args.runs):
        for name, run in (
            ("loop", loop),
            ("encode_batch", batches),
            ("counter", counter),
            ("ours", ours),
        ):
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
        "counter": size / best["counter"],
        "ours": megabytes / best["ours"],
        "compared": whole,
        "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
    }
    return row | {
        "counter_to_loop": row["counter"] / row["loop"],
        "ours_to_encode_batch": row["ours"] / row["encode_batch"],
    }


def formatted(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    speeds = " ".join(
        f"{row[name]:7.1f}" for name in ("megabytes", "read", "loop", "encode_batch", "counter", "ours")
    )
    equal = "yes" if row["compared"] else "-"
    ratios = f"{row['counter_to_loop']:7.1f} {row['ours_to_encode_batch']:6.1f}"
    return f"{row['tokenizer']:24} {speeds} {ratios} {equal:5} {row['peak_mb']:8.0f}"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = build_parser().parse_args(argv)
    titles = ("MB", "read", "loop", "batch", "counter", "ours", "c/loop")
    print(f"{'tokenizer':24} {' '.join(f'{title:>7}' for title in titles)}  ratio equal  peak MB")
    rows = []
    with tempfile.TemporaryDirectory() as work:
        corpus = Path(work) / "corpus.jsonl"
        write_documents(corpus, code(args.code_mb) if args.code_mb else read_texts(args.corpus))
        for name in args.tokenizers:
            folder = Path(name) if Path(name).is_dir() else ASSETS / "tokenizers" / name
            rows.append(measure(folder, corpus, args))
            print(formatted(rows[-1]), flush=True)
    print(
        json.dumps({"benchmark": "count", "date": f"{date.today()}", "cores": os.cpu_count(), "rows": rows})
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
