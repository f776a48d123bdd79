#!/usr/bin/env python3
"""Is trimming exact? Trim small random models with real tokenizers and climb the ladder on real corpora.

    python3 benchmarks/exactness.py [--tokenizers qwen2.5-instruct gemma-2-it …] [--texts FILE_OR_FOLDER…]

Reads the tokenizers and corpora of $VOCABKIT_ASSETS (default: ../shared/assets). For each tokenizer a model
of two layers (D = 32, random weights, the real number of rows) is made twice in a temporary folder, trimmed
by `model_edit.py -t trimm_vocab` without --keep, and verified: tied on the texts, untied (the same tokenizer)
on the texts that trimming itself uses. Prints a row per model; exit status 1 if any check has a finding. The
last line is the table as JSON.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.errors import UserError, run_cli  # noqa: E402
from vocabkit.files import read_json_object, write_json  # noqa: E402

# name → model class of transformers and number of rows of the real models
MODELS = {
    "qwen2.5-instruct": ("Qwen2", 151936),
    "qwen3": ("Qwen3", 151936),
    "llama-3.2-instruct": ("Llama", 128256),
    "gemma-2-it": ("Gemma2", 256000),
    "t5-v1_1": ("T5", 32128),
    "SYNTHETIC-mt5-like-32k": ("MT5", 32128),
}
D = 32


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizers", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument(
        "--texts", nargs="+", type=Path, help="default: the corpora folder of $VOCABKIT_ASSETS"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the table; return 1 if any check has a finding."""
    args = build_parser().parse_args(argv)
    assets = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
    if not assets.is_dir():
        raise UserError(f"{assets} is missing; set VOCABKIT_ASSETS to a folder with tokenizers/ and corpora/")
    texts = args.texts or [assets / "corpora"]
    table = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.tokenizers:
            for tied in (True, False):
                folder = Path(scratch) / f"{name}-{'tied' if tied else 'untied'}"
                make_model(folder, assets / "tokenizers" / name, *MODELS[name], tied=tied)
                table.append({"tokenizer": name, "tied": tied, **check(folder, texts if tied else None)})
                shutil.rmtree(folder)
    columns = list(table[0])
    print("\n" + " | ".join(columns))
    for row in table:
        print(" | ".join(f"{v:,}" if type(v) is int else str(v) for v in row.values()))
    print(json.dumps(table))
    return 1 if any(row["findings"] for row in table) else 0


def make_model(folder: Path, tokenizer: Path, family: str, rows: int, *, tied: bool) -> None:
    """Write a small random model of a family with a real tokenizer's files."""
    import torch
    import transformers

    shutil.copytree(tokenizer, folder)
    folder.chmod(0o755)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": D}
    sizes |= {"intermediate_size": 64, "head_dim": 8}
    if family.endswith("T5"):
        sizes = {
            "d_model": D,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        }
    path = folder / "config.json"
    ids = read_json_object(path) if path.exists() else {"eos_token_id": 1, "pad_token_id": 0}
    ids = {key: value for key, value in ids.items() if key.endswith("_token_id")}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=rows, tie_word_embeddings=tied, **sizes, **ids
    )
    suffix = "ForConditionalGeneration" if config.is_encoder_decoder else "ForCausalLM"
    model = getattr(transformers, family + suffix)(config)
    path.unlink(missing_ok=True)
    model.save_pretrained(folder)
    if config.is_encoder_decoder and not tied:
        untie(folder)


def untie(folder: Path) -> None:
    """Give a T5 a head of its own, as v1.1 and mT5 have: transformers 5 ties every T5 that it makes."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn_like(tensors["shared.weight"])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(
        folder / "config.json", read_json_object(folder / "config.json") | {"tie_word_embeddings": False}
    )


def check(folder: Path, texts: list[Path] | None) -> dict[str, object]:
    """Trim a folder, verify it on texts, and return the row of the table."""
    from vocabkit.edit.trim import trim_vocab
    from vocabkit.verify.ladder import verify_edit

    start = time.perf_counter()
    out = folder.with_name(folder.name + "__trimm_vocab")
    trim_vocab(folder, out)
    verify_edit(folder, out, texts=texts)
    report = read_json_object(out / "verify_report.json")
    numbers = {name: value for step in report["checks"] for name, value in step["numbers"].items()}
    wanted = ("texts", "covered", "mismatches", "decode_differences", "own_covered", "rows_different")
    row: dict[str, object] = {"kept": numbers["n_tokens"], **{name: numbers[name] for name in wanted}}
    row["max_abs_logit_difference"] = f"{numbers['max_abs_difference']:.2g}"
    row["findings"] = sum(len(step["findings"]) for step in report["checks"])
    row["seconds"] = round(time.perf_counter() - start)
    shutil.rmtree(out)
    return row


if __name__ == "__main__":
    run_cli(main)
