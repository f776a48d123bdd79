#!/usr/bin/env python3
"""What stage 1 is worth: new rows before it, after it under each objective, and with nothing frozen.

Reads an extended checkpoint and .jsonl files of Vietnamese and English texts; trains each arm into OUT/ARM
(one that is there is measured, not trained again) and prints a table. Contexts are taken from lines of the
held-out file alone.

    python3 benchmarks/massage.py MODEL__extend_vocab --train vi/ --test held_out.txt --other en.txt -o OUT
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import finetune_qwen
from vocabkit.errors import UserError, run_cli

ARMS = {
    "lm": ["--objective", "lm"],
    "distill": ["--objective", "distill"],
    "both": ["--objective", "both"],
    "no freezing": ["--train_rows", "all", "--finetune_layers", "all", "--learning_rate", "1e-4"],
}
COLUMNS = ("input KL", "log p − Σ log p", "|…|", "bits per byte vi", "bits per byte en")
GAPS = 100


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="extended checkpoint")
    parser.add_argument("--train", required=True, help="Vietnamese texts to train on")
    parser.add_argument("--test", type=Path, required=True, help="held-out Vietnamese .jsonl")
    parser.add_argument("--other", type=Path, required=True, help="held-out English .jsonl")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the arms")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS], help="(default: all)")
    parser.add_argument("--steps", type=int, default=100, help="of each arm (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="texts, and contexts (default: %(default)s)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a text (default: %(default)s)")
    parser.add_argument("--train_only", action="store_true", help="train the arms, measure nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Train the arms that are missing, measure all, print the table."""
    args = build_parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    folders = {"init only": args.model}
    for arm in args.arms:
        folders[arm] = args.out / arm.replace(" ", "_")
        if not folders[arm].exists():
            finetune_qwen.main(
                ["--model_name_or_path", str(args.model), "--data_path", args.train, "--eval_share", "0",
                 "--output_dir", str(folders[arm]), "--model_max_length", str(args.length),
                 "--per_device_train_batch_size", str(args.batch), "--max_steps", str(args.steps),
                 "--learning_rate", "1e-2", "--packing", "none", *ARMS[arm]]
            )  # fmt: skip
    if args.train_only:
        return 0
    from vocabkit.model import silence

    silence()
    rows = measure_rows(args.model, folders, args.test)
    print(f"{'':<12}" + "".join(f"{name:>18}" for name in COLUMNS))
    for arm, folder in folders.items():
        bits = [bits_per_byte(folder, path, args.length * 4) for path in (args.test, args.other)]
        own = rows.get(arm, [float("nan")] * 3)  # with other weights around them rows are no matter of rows
        values = [*own, *bits]
        print(f"{arm:<12}" + "".join(f"{value:>18.4f}" for value in values), flush=True)
        print(json.dumps({"arm": arm, **dict(zip(COLUMNS, values, strict=True))}), file=sys.stderr)
    return 0


def measure_rows(model: Path, folders: dict[str, Path], test: Path) -> dict[str, list[float]]:
    """Return arm → input KL, calibration and its size, at one place of each word in the held-out texts."""
    from vocabkit.contexts import find_contexts
    from vocabkit.corpus import find_sources
    from vocabkit.measure_inits import Rows, gap_of, measure_contexts
    from vocabkit.train_distill import old_and_new_encoder
    from vocabkit.train_output import new_rows
    from vocabkit.word_model import WordModel

    where = new_rows(model)
    if where is None:
        raise UserError(f"{model} has no new rows; extend it first: model_edit.py -t extend_vocab")
    contents, old, new = old_and_new_encoder(model, where)
    contexts = find_contexts(find_sources([str(test)]), contents, old, new, per_word=1, part="test")
    sets = {
        arm: Rows(*table_rows(folder, where.first, where.stop))
        for arm, folder in folders.items()
        if arm != "no freezing"
    }
    some = next(iter(sets.values()))
    reader = WordModel(model, first_new=where.first, input_rows=some.input, output_rows=None)
    found = measure_contexts(reader, sets, [gap_of(context) for context in contexts][:GAPS], base="old")
    names = ("input_kl", "output_log_ratio", "output_log_ratio_abs")
    print(f"{min(len(contexts), GAPS)} contexts of as many words")
    return {arm: [measures[name].value for name in names] for arm, measures in found.items() if arm in sets}


def table_rows(folder: Path, first: int, stop: int) -> tuple[Any, Any]:
    """Return the new rows of the input and of the output, (W, D) float32 each."""
    from vocabkit.checkpoint import read_checkpoint, rows_as_float32
    from vocabkit.files import read_json_object
    from vocabkit.vocab_tensors import find_vocab_tensors

    found = find_vocab_tensors(read_checkpoint(folder), read_json_object(folder / "config.json"))
    embed = rows_as_float32(found.embed[0], range(first, stop))
    if found.tied:
        return embed, embed
    raise UserError(f"{folder} is untied; this benchmark is of tied models")


def bits_per_byte(folder: Path, path: Path, length: int) -> float:
    """Return the bits per byte of a file's texts, as finetune_qwen.py measures them."""
    import math

    import torch

    from vocabkit.model import load_model, load_tokenizer
    from vocabkit.packing import Collator, pack
    from vocabkit.train_data import load_dataset
    from vocabkit.train_loss import fuse_loss

    tokenizer, model = load_tokenizer(folder), load_model(folder)
    texts = load_dataset([str(path)], tokenizer, max_length=length, notes=lambda note: None)
    packed = pack(texts, how="none", max_length=length, notes=lambda note: None)
    fuse_loss(model, n_tokens=max(tokenizer.get_vocab().values()) + 1)
    nats = 0.0
    with torch.inference_mode():
        for row in packed:
            nats += float(model(**Collator(0)([row]), per_row=True).logits[:, 0].sum())
    return nats / math.log(2) / sum(packed["num_bytes"])


if __name__ == "__main__":
    run_cli(main)
