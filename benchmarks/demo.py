#!/usr/bin/env python3
"""Print what trimming changed, base beside trimmed: tokens, rows, parameters, bytes, exactness, speed.

    python3 benchmarks/demo.py data/demo out/demo__trimm_vocab [--runs 5]

Reads both folders and OUT/verify_report.json, which `model_edit.py -t verify_edit` wrote; writes nothing.
Speed is the median of several greedy answers of a fixed length, the two models taking turns, on the device
found.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from vocabkit.errors import UserError, run_cli  # noqa: E402
from vocabkit.files import read_json_object, read_versioned  # noqa: E402

PROMPT = [{"role": "user", "content": "Translate following sentence into English: tôi là giáo viên ở Hà Nội"}]
NEW_TOKENS = 48


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("trimmed", type=Path)
    parser.add_argument("--runs", type=int, default=5, help="answers timed per model (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    args = build_parser().parse_args(argv)
    report_path = args.trimmed / "verify_report.json"
    if not report_path.is_file():
        raise UserError(
            f"{report_path} is missing; run first: model_edit.py -t verify_edit -b … -m {args.trimmed}"
        )
    report = read_versioned(report_path, format="verify-report", version=1)
    numbers = {name: value for check in report["checks"] for name, value in check["numbers"].items()}
    if "max_abs_difference" not in numbers:
        raise UserError(
            f"{report_path} holds no logits; run first: model_edit.py -t verify_edit -m {args.trimmed}"
        )

    import torch

    from vocabkit.models.load import load_model, load_tokenizer, prompt_ids, silence

    torch.set_num_threads(1)  # a model this small is no faster on more, and far slower beside other work
    silence()
    folders = (args.base, args.trimmed)
    models = [load_model(folder) for folder in folders]
    tokenizers = [load_tokenizer(folder) for folder in folders]
    prompts = [prompt_ids(model, tok, PROMPT) for model, tok in zip(models, tokenizers, strict=True)]
    speeds: list[list[float]] = [[], []]
    for run in range(args.runs + 1):
        for which, (model, ids) in enumerate(zip(models, prompts, strict=True)):
            speed = tokens_per_second(model, ids)
            if run:  # the first answers warm up
                speeds[which].append(speed)
    before, after = (statistics.median(values) for values in speeds)

    rows = [
        ("tokens", *(len(tokenizer) for tokenizer in tokenizers)),
        ("rows", *(read_json_object(folder / "config.json")["vocab_size"] for folder in folders)),
        ("parameters", *(sum(p.numel() for p in model.parameters()) for model in models)),
        (
            "bytes of weights",
            *(sum(f.stat().st_size for f in folder.glob("*.safetensors")) for folder in folders),
        ),
        ("greedy tokens/s (median)", round(before), round(after)),
    ]
    print(f"{'':26}{'base':>12}{'trimmed':>12}{'':>8}")
    for name, old, new in rows:
        print(f"{name:26}{old:>12,}{new:>12,}{new / old:>8.2f}×")
    print()
    facts = [
        ("texts checked", f"{numbers['texts']:,}, of them of kept tokens only: {numbers['covered']:,}"),
        ("encoded differently", f"{numbers['mismatches']:,}"),
        ("decoded differently", f"{numbers['decode_differences']:,}"),
        ("rows that differ", f"{numbers['rows_different']:,} of {numbers['rows_compared']:,}"),
        ("max |Δ logit|", f"{numbers['max_abs_difference']:.3g} over {numbers['positions']:,} positions"),
        ("bits per byte", f"{numbers['bits_per_byte_base']:.4f} → {numbers['bits_per_byte']:.4f}"),
    ]
    for name, fact in facts:
        print(f"{name:26}{fact}")
    return 0


def tokens_per_second(model: object, ids: list[int]) -> float:
    """Return the speed of one greedy answer of exactly NEW_TOKENS tokens."""
    import torch

    inputs = torch.tensor([ids], device=model.device)  # type: ignore[attr-defined]
    start = time.perf_counter()
    output = model.generate(  # type: ignore[attr-defined]
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
    )
    return (output.shape[1] - len(ids)) / (time.perf_counter() - start)


if __name__ == "__main__":
    run_cli(main)
