"""What stage 1 is worth: new rows before it, after it under each objective, and with nothing frozen.

Reads an extended checkpoint and Vietnamese and English texts; trains each arm into OUT/ARM (one that is there
is measured, not trained again) and prints a table.

    input KL           KL(base || edited) of the next old token from a new word on, nats
    log p − Σ log p    of a word where it begins, against its old tokens; then its size
    bits per byte      of the held-out texts, ± standard error of the change since "init only"

Contexts are taken from the lines of --test that are never learned from, one a word. --base: the model before
it was extended, on the same texts. --beside: other folders of the same tokens, such as those of later stages.

    python3 benchmarks/massage.py MODEL__extend_vocab --train vi/ --test held_out.txt --other en.txt -o OUT
"""

import argparse
import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import finetune_qwen
from vocabkit.errors import UserError, run_cli
from vocabkit.rows.estimates import ratio_by_cluster

ARMS = {
    "lm": ["--objective", "lm"],
    "distill": ["--objective", "distill"],
    "both": ["--objective", "both"],
    "no freezing": ["--train_rows", "all", "--finetune_layers", "all", "--learning_rate", "1e-4"],
}
ROWS = {"input KL": "input_kl", "log p − Σ log p": "output_log_ratio", "|…|": "output_log_ratio_abs"}
GAPS = 200


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path, help="extended checkpoint")
    add("--train", nargs="+", required=True, help="texts to train on")
    add("--test", type=Path, required=True, help="held-out Vietnamese texts")
    add("--other", type=Path, required=True, help="held-out English texts")
    add("-o", "--out", type=Path, required=True, help="folder of the arms")
    add("--arms", nargs="+", choices=ARMS, default=[*ARMS], help="(default: all)")
    add("--base", type=Path, help="the checkpoint without the new words")
    add("--beside", type=Path, nargs="+", default=[], help="measured too")
    add("--steps", type=int, default=150, help="of each arm (default: %(default)s)")
    add("--batch", type=int, default=16, help="texts, and contexts (default: %(default)s)")
    add("--length", type=int, default=64, help="tokens of a text (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Train the arms that are missing, measure all, print the table."""
    args = build_parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    folders = {"init only": args.model, **{path.name: path for path in args.beside}}
    for arm in args.arms:
        folders[arm] = args.out / arm.replace(" ", "_")
        if not folders[arm].exists():
            finetune_qwen.main(
                ["--model_name_or_path", str(args.model), "--data_path", *args.train, "--eval_share", "0",
                 "--output_dir", str(folders[arm]), "--model_max_length", str(args.length),
                 "--per_device_train_batch_size", str(args.batch), "--max_steps", str(args.steps),
                 "--packing", "none", "--cache_dir", str(args.out / "tokenized"), *ARMS[arm]]
            )  # fmt: skip
    from vocabkit.models.load import silence

    silence()
    rows = measure_rows(args.model, folders, args.test)
    held_out = {"bits per byte vi": args.test, "bits per byte en": args.other}
    print(f"{'':<22}" + "".join(f"{name:>18}" for name in [*ROWS, *held_out]))
    if args.base:
        bits = [ratio_by_cluster(*bits_of_texts(args.base, path)).value for path in held_out.values()]
        print(
            f"{'base, old tokens':<22}" + " " * 18 * len(ROWS) + "".join(f"{value:>18.4f}" for value in bits)
        )
    before = {name: bits_of_texts(args.model, path) for name, path in held_out.items()}
    for arm, folder in folders.items():
        found = dict(rows.get(arm, {}))
        for name, path in held_out.items():
            bits, sizes = bits_of_texts(folder, path)
            change = ratio_by_cluster(
                [now - then for now, then in zip(bits, before[name][0], strict=True)], sizes
            )
            found[name] = ratio_by_cluster(bits, sizes).value, change.standard_error or 0.0
        cells = [f"{value:.4f} ± {error:.4f}" for value, error in found.values()]
        print(
            f"{arm:<22}" + " " * 18 * (len(ROWS) + 2 - len(cells)) + "".join(f"{cell:>18}" for cell in cells)
        )
        print(json.dumps({"arm": arm, **found}, ensure_ascii=False), file=sys.stderr, flush=True)
    return 0


def measure_rows(
    model: Path, folders: dict[str, Path], test: Path
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return arm → column of ROWS → value and standard error, at one place of each word.

    Only of folders in which nothing but new rows was trained: the others are other models.
    """
    from vocabkit.checkpoint.record import EditRecord, new_rows
    from vocabkit.corpus.files import find_sources
    from vocabkit.models.word_model import Rows, load_word_model
    from vocabkit.rows.contexts import find_contexts
    from vocabkit.rows.measures import gap_of, measure_contexts
    from vocabkit.train.lessons import old_and_new_encoder

    where = new_rows(model)
    if where is None:
        raise UserError(f"{model} has no new rows; extend it first: model_edit.py -t extend_vocab")
    contents, old, new = old_and_new_encoder(model, where)
    ids = range(where.first, where.stop)
    contexts = find_contexts(find_sources([str(test)]), contents, old, new, per_word=1, part="test", ids=ids)
    sets = {
        arm: Rows(table_rows(folder, where.first, where.stop))
        for arm, folder in folders.items()
        if all(
            (stage["train_rows"], stage["finetune_layers"]) == ("new", "none")
            for stage in EditRecord.read(folder).training or []
        )
    }
    reader = load_word_model(model, next(iter(sets.values())), first_new=where.first)
    found = measure_contexts(reader, sets, [gap_of(context) for context in contexts][:GAPS], base="old")
    print(f"{min(len(contexts), GAPS)} contexts of as many words")
    return {
        arm: {
            column: (found[arm][name].value, found[arm][name].standard_error or 0.0)
            for column, name in ROWS.items()
        }
        for arm in sets
    }


def table_rows(folder: Path, first: int, stop: int) -> Any:
    """Return the new rows of both ends, (W, D) float32."""
    from vocabkit.checkpoint.folder import open_folder
    from vocabkit.checkpoint.numbers import rows_as_float32

    tensors = open_folder(folder).tensors
    if not tensors.tied:
        raise UserError(f"{folder} is untied; this benchmark is of tied models")
    return rows_as_float32(tensors.embed[0], range(first, stop))


@functools.cache  # what every arm is compared with is an arm too
def bits_of_texts(folder: Path, path: Path, *, max_length: int = 256) -> tuple[list[float], list[int]]:
    """Return the bits and the bytes of each text of a file, as finetune_qwen.py measures them."""
    import torch

    from vocabkit.models.load import load_model, load_tokenizer
    from vocabkit.train.data.packing import Collator, pack
    from vocabkit.train.data.tokenize import load_dataset
    from vocabkit.train.loss import fuse_loss
    from vocabkit.train.run import token_count

    tokenizer, model = load_tokenizer(folder), load_model(folder)
    texts = load_dataset([str(path)], tokenizer, max_length=max_length, notes=lambda note: None)
    packed = pack(texts, how="none", max_length=max_length, notes=lambda note: None)
    fuse_loss(model, n_tokens=token_count(tokenizer, model))
    bits = []
    with torch.inference_mode():
        for row in packed:
            nats = model(**Collator(0)([row]), per_row=True).logits[:, 0].sum()
            bits.append(float(nats) / math.log(2))
    return bits, list(packed["num_bytes"])


if __name__ == "__main__":
    run_cli(main)
