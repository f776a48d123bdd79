#!/usr/bin/env python3
"""Count a corpus's tokens and compare the speed with plain ways, all in one run.

For each tokenizer, in megabytes of UTF-8 text a second, by the clock:

    read         read_blocks() and parse_block() alone: what reading, decompressing and parsing allow
    loop         one encode() a document and a Counter, on one core
    batch        encode_batch of the tokenizers library on all cores, 512 documents a call, and a Counter
    counter      one TokenCounter on one core: compare with loop; neither includes a start
    ours         `build_vocab.py --count_only`, the whole program from its start, on all cores

The corpus is rewritten as .jsonl with documents of up to 4 KB, the size of a web page's text, which suits
encode_batch. Loop, batch and counter get the first --sample_mb of the corpus only: the speed of the first two
does not depend on the amount. Ours gets all of it; it gains from more, since a corpus repeats itself. The
counts of counter are always compared with those of batch, those of ours where the sample is the whole corpus.
cpu: the processor time of batch over that of ours, for a megabyte: what the ratio by the clock would be if
other work did not disturb either and all cores were busy. Peak MB: of all processes of ours together (shared
pages once). The last line is the table as JSON.

    python3 benchmarks/count.py
    python3 benchmarks/count.py my_corpus.jsonl.xz folder/ --tokenizers qwen2.5-instruct
    python3 benchmarks/count.py --code_mb 100
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
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
    parser.add_argument(
        "corpus", nargs="*", default=corpora, metavar="CORPUS", help="default: English, Vietnamese, pairs"
    )
    parser.add_argument(
        "--tokenizers", nargs="+", default=TOKENIZERS, help="folders, or names in $VOCABKIT_ASSETS/tokenizers"
    )
    parser.add_argument(
        "--code_mb", type=float, help="instead of CORPUS: so much of the Python code installed here"
    )
    parser.add_argument("--repeat", type=int, default=1, help="how often the corpus is written (default: 1)")
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
    from vocabkit.corpus.files import find_sources, read_blocks
    from vocabkit.corpus.records import parse_block

    return [
        text
        for source in find_sources(corpus)
        for block in read_blocks(source, text_field=None, notes=lambda note: None)
        for text in parse_block(block, text_field=None)[0]
    ]


def seconds(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return what one run takes by the clock and of processor time, that of its processes too, and its
    result.
    """
    start, before = time.perf_counter(), os.times()
    result = run()
    after = os.times()
    return time.perf_counter() - start, sum(after[:4]) - sum(before[:4]), result


class PeakMemory:
    """The most memory that a process and its children took together, in MB, while the body of `with` ran.

    Linux: the sum of their proportional set sizes, looked at five times a second.
    """

    def __init__(self, pid: int) -> None:
        self.megabytes = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(pid,))

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self, pid: int) -> None:
        while not self._stop.wait(0.2):
            self.megabytes = max(self.megabytes, sum(map(self._size, self._family(pid))))

    def _family(self, pid: int) -> list[int]:
        found = [pid]
        for parent in found:
            for path in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, _content(path).split())
        return found

    def _size(self, pid: int) -> float:
        lines = _content(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
        return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:"))


def _content(path: Path) -> str:
    """What a file of /proc says; nothing if the process has ended."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def measure(folder: Path, corpus: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the four ways for one tokenizer; speeds in MB of text a second."""
    from vocabkit.counts.fast import why_not
    from vocabkit.counts.tokens import TokenCounter
    from vocabkit.files import read_json

    read_seconds, _, texts = seconds(lambda: read_texts([str(corpus)]))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    sample, size = [], 0.0
    for text in texts:
        if size >= args.sample_mb:
            break
        sample.append(text)
        size += len(text.encode()) / 1e6
    whole = len(sample) == len(texts)
    del texts
    tokens = TokenCounter(folder, fast=why_not(folder) is None)
    counts_file = corpus.with_name("counts.json")
    peak = 0.0

    def loop() -> Counter[int]:
        counts: Counter[int] = Counter()
        for text in sample:
            counts.update(tokens.encoder.encode(text).ids)
        return counts

    def batches() -> Counter[int]:
        counts: Counter[int] = Counter()
        for at in range(0, len(sample), BATCH):
            for encoding in tokens.encoder.encode_batch(sample[at : at + BATCH]):
                counts.update(encoding.ids)
        return counts

    def counter() -> Counter[int]:
        for at in range(0, len(sample), BATCH):
            tokens.add(sample[at : at + BATCH])
        return Counter({at: count for at, count in enumerate(tokens.take().tolist()) if count})

    def ours() -> Counter[int]:
        nonlocal peak
        counts_file.unlink(missing_ok=True)
        command = [sys.executable, str(ROOT / "build_vocab.py"), "-m", str(folder), str(corpus)]
        command += ["--count_only", "-o", str(counts_file)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with PeakMemory(process.pid) as memory:
            if process.wait():
                raise UserError(f"{' '.join(command)} failed; run it alone to see why")
        peak = max(peak, memory.megabytes)
        return Counter({int(token): count for token, count in read_json(counts_file)["counts"].items()})

    ways = {"loop": loop, "batch": batches, "counter": counter, "ours": ours}
    best = dict.fromkeys(ways, float("inf"))
    best_cpu = dict(best)
    for _ in range(args.runs):
        results = {}
        for name, run in ways.items():
            os.environ["TOKENIZERS_PARALLELISM"] = "false" if name in ("loop", "counter") else "true"
            spent, cpu, results[name] = seconds(run)
            best[name], best_cpu[name] = min(best[name], spent), min(best_cpu[name], cpu)
        for name in ("counter", "ours") if whole else ("counter",):
            if results[name] != results["batch"]:
                raise UserError(f"{folder}: {name} counts otherwise than encode_batch; please report it")
    row = {"tokenizer": folder.name, "megabytes": megabytes, "read": megabytes / read_seconds}
    row |= {name: (megabytes if name == "ours" else size) / spent for name, spent in best.items()}
    return row | {
        "counter_to_loop": row["counter"] / row["loop"],
        "ours_to_batch": row["ours"] / row["batch"],
        "ours_to_batch_cpu": (best_cpu["batch"] / size) / (best_cpu["ours"] / megabytes),
        "compared": whole,
        "peak_mb": peak,
    }


def formatted(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    speeds = " ".join(
        f"{row[name]:7.1f}" for name in ("megabytes", "read", "loop", "batch", "counter", "ours")
    )
    equal = "yes" if row["compared"] else "-"
    ratios = f"{row['counter_to_loop']:7.1f} {row['ours_to_batch']:6.1f} {row['ours_to_batch_cpu']:6.1f}"
    return f"{row['tokenizer']:24} {speeds} {ratios} {equal:5} {row['peak_mb']:8.0f}"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = build_parser().parse_args(argv)
    titles = ("MB", "read", "loop", "batch", "counter", "ours", "c/loop")
    print(f"{'tokenizer':24} {' '.join(f'{title:>7}' for title in titles)}  ratio    cpu equal  peak MB")
    rows = []
    with tempfile.TemporaryDirectory() as work:
        corpus = Path(work) / "corpus.jsonl"
        texts = list(code(args.code_mb) if args.code_mb else read_texts(args.corpus))
        write_documents(corpus, texts * args.repeat)
        del texts
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
