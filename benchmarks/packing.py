#!/usr/bin/env python3
"""Train one small model with each way of packing, on the same documents, and compare what it costs and
learns.

Every arm starts from the same weights and sees each document once. A document is a line of the corpora of at
least --min_chars characters; every tenth is held out and measured alone in a row, in bits per byte. Steps
hold about the same number of real tokens in all arms, so that they take about as many.

    tokens/s  real tokens a second of processor time in training, on one thread (forward, backward, update)
    padding   share of the positions that were computed and are padding
    cut       cuts per document

"similar, across": documents of a row see those before them. The last line is the table as JSON.

    python3 benchmarks/packing.py
    python3 benchmarks/packing.py --from_scratch --megabytes 1
"""

import argparse
import json
import math
import os
import random
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.errors import UserError, run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
CORPORA = ["en/wikitext2_valid_raw.txt", "en/d2l_en.txt", "vi/wiki_qa.txt", "vi/d2l_vi.txt"]
ARMS = {"none": ("none", False), "concat": ("concat", False), "best_fit": ("best_fit", False)}
ARMS |= {"similar": ("similar", False), "similar, across": ("similar", True)}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--model", type=Path, default=ROOT / "data" / "demo", help="folder (default: the demo)"
    )
    parser.add_argument("--from_scratch", action="store_true", help="random weights instead of the folder's")
    parser.add_argument(
        "--corpus", nargs="+", type=Path, default=[ASSETS / "corpora" / name for name in CORPORA], help=".txt"
    )
    parser.add_argument("--megabytes", type=float, default=0.3, help="of documents (default: 0.3)")
    parser.add_argument("--min_chars", type=int, default=60, help="of a document (default: 60, no headings)")
    parser.add_argument("--max_length", type=int, default=512, help="tokens of a row (default: 512)")
    parser.add_argument("--rows", type=int, default=4, help="full rows' worth of tokens a step (default: 4)")
    parser.add_argument("--lr", type=float, default=1e-3, help="of AdamW, falling to 0 (default: 1e-3)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each arm (default: 1)")
    return parser


def write_documents(args: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Write training and held-out documents as .jsonl: an equal part of each corpus, pieces of neighbours."""
    sets: tuple[list[str], list[str]] = ([], [])
    for path in args.corpus:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
        budget = args.megabytes * 1e6 / len(args.corpus)
        for at, line in enumerate(line for line in lines if len(line) >= args.min_chars):
            budget -= len(line.encode())
            if budget < 0:
                break
            sets[at % 10 == 9].append(line)
    paths = folder / "train.jsonl", folder / "held_out.jsonl"
    for path, texts in zip(paths, sets, strict=True):
        random.Random(0).shuffle(texts)
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        path.write_text("\n".join(lines), encoding="utf-8")
    return paths


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = build_parser().parse_args(argv)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from vocabkit.train.data.packing import Collator, fill_rate, pack
    from vocabkit.train.data.samples import IGNORED
    from vocabkit.train.data.tokenize import load_dataset

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def fresh(seed: int) -> Any:
        torch.manual_seed(seed)
        if args.from_scratch:
            config = AutoConfig.from_pretrained(args.model)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)

    def load(path: Path) -> Any:
        return load_dataset([str(path)], tokenizer, max_length=args.max_length, notes=print)

    def nats(model: Any, batch: dict[str, Any]) -> Any:
        logits = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
        )

    def bits_per_byte(model: Any, rows: Any) -> float:
        collate = Collator(tokenizer.pad_token_id)
        model.eval()
        with torch.inference_mode():
            total = sum(float(nats(model, collate([row]))) for row in rows)
        return total / math.log(2) / sum(rows["num_bytes"])

    def train(how: str, across: bool, seed: int, documents: Any, held_out: Any) -> dict[str, float]:
        rows = pack(documents, how=how, max_length=args.max_length, seed=seed, notes=print)
        fill = fill_rate(rows, args.max_length)
        collate = Collator(tokenizer.pad_token_id, across)
        size = max(1, round(args.rows / fill))
        order = list(range(len(rows)))
        random.Random(seed).shuffle(order)
        batches = [collate([rows[i] for i in order[at : at + size]]) for at in range(0, len(order), size)]
        model = fresh(seed).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, len(batches))
        start = time.process_time()
        for batch in batches:
            loss = nats(model, batch) / (batch["labels"] != IGNORED).sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        spent = time.process_time() - start
        if not math.isfinite(last := float(loss.detach())):
            raise UserError(f"the loss of {how} is {last}; give a smaller --lr")
        real = sum(map(sum, rows["seq_lengths"]))
        computed = sum(batch["input_ids"].numel() for batch in batches)
        cuts = (sum(map(len, rows["seq_lengths"])) - len(documents)) / len(documents)
        return {
            "bits_per_byte": bits_per_byte(model, held_out), "tokens_per_s": real / spent,
            "padding": 1 - real / computed, "cut": cuts, "steps": len(batches),
        }  # fmt: skip

    with tempfile.TemporaryDirectory() as work:
        training, testing = map(load, write_documents(args, Path(work)))
    held_out = pack(testing, how="none", max_length=args.max_length, notes=print)
    before = bits_per_byte(fresh(0), held_out)
    print(
        f"{len(training):,} documents, held out {len(testing):,}; before training {before:.4f} bits per byte"
    )
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for seed in range(args.seeds):  # arms take turns, so that a busy machine slows all of them
        for name, (how, across) in ARMS.items():
            runs[name].append(train(how, across, seed, training, held_out))
    print(f"{'':16}{'bits/byte':>20}{'tokens/s':>10}{'padding':>9}{'cut':>6}{'steps':>7}")
    for name, results in runs.items():
        losses = " ".join(f"{result['bits_per_byte']:.4f}" for result in results)
        best = max(results, key=lambda result: result["tokens_per_s"])
        print(
            f"{name:16}{losses:>20}{best['tokens_per_s']:10,.0f}{best['padding']:9.1%}{best['cut']:6.2f}"
            f"{best['steps']:7}"
        )
    about = {"benchmark": "packing", "date": f"{date.today()}", "bits_per_byte_before": before}
    print(json.dumps({**about, "arms": runs}))
    return 0


if __name__ == "__main__":
    run_cli(main)
