#!/usr/bin/env python3
"""Edit the vocabulary of a checkpoint, verify the edit, look at what came out.

Reads a Hugging Face folder (-m) and, for some tasks, the folder it came from (-b); trimm_vocab and
extend_vocab write a new folder, verify_edit writes verify_report.json into the edited one, the others only
print.

    python3 model_edit.py -m ../Qwen2.5-1.5B-Instruct -t trimm_vocab
    python3 model_edit.py -m Qwen/Qwen2.5-7B-Instruct -t trimm_vocab -o out
    python3 model_edit.py -b ../Qwen2.5-1.5B-Instruct -m ../Qwen2.5-1.5B-Instruct__trimm_vocab -t verify_edit
    python3 model_edit.py -b ../Qwen2.5-1.5B-Instruct -m ../Qwen2.5-1.5B-Instruct__trimm_vocab -t extend_vocab
    python3 model_edit.py -m ../Qwen2.5-1.5B-Instruct -t view_embeddings --tokens " Việt" --plot rows.png
    python3 model_edit.py -m ../Qwen2.5-1.5B-Instruct__extend_vocab -t export_gguf --outtype q8_0
    python3 model_edit.py -m qwen2.5-7b-instruct-q4_k_m.gguf -t trimm_vocab
    python3 model_edit.py -t compare_vocab -m ../Qwen2.5-0.5B-Instruct -b ../Qwen2.5-7B-Instruct
"""

import argparse
import sys
from pathlib import Path

from vocabkit.errors import run_cli
from vocabkit.rows.names import DEFAULT, INITS, MEANINGS

TASKS = (
    "trimm_vocab", "extend_vocab", "verify_edit", "view_embeddings", "compare_vocab", "compare_inits",
    "export_gguf",
)  # fmt: skip
ALIASES = {"trim_vocab": "trimm_vocab"}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("-m", "--model", required=True, help="checkpoint folder, or a hub id (downloaded)")
    parser.add_argument("-t", "--task", required=True, choices=[*TASKS, *ALIASES], help="what to do")
    parser.add_argument("-b", "--base", help="the checkpoint to compare with: the source of an edited folder")
    parser.add_argument(
        "-o", "--out", type=Path, help="new folder (default: MODEL__TASK, or MODEL__extend_vocab for "
        "MODEL__trimm_vocab); must not exist",
    )  # fmt: skip
    parser.add_argument(
        "--pad_multiple", type=int, default=64,
        help="rows are a multiple of this (default: %(default)s, what GPU kernels and vLLM like)",
    )  # fmt: skip
    parser.add_argument(
        "--hardlink", action="store_true", help="link unchanged weight files instead of copying them"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print what would be kept or added, write nothing"
    )
    add = parser.add_argument_group("trimm_vocab").add_argument
    add(
        "--keep", nargs="+", type=Path, default=[], metavar="DIR_OR_FILE",
        help="kept lists: folders of tokens_kept__*.jsonl, .jsonl rows [token, id, count], .txt or .json of "
        "ids (default: the bundled list made for this tokenizer, else the text rules alone)",
    )  # fmt: skip
    add("--allow_all_bytes", action="store_true", help="let generate() spell removed scripts by bytes")
    add = parser.add_argument_group("extend_vocab").add_argument
    add(
        "--words", type=Path, metavar="FILE",
        help='.jsonl rows with "word" or "syllable", or .txt, a word a line (default: the bundled list)',
    )  # fmt: skip
    add(
        "--num_tokens", type=int, metavar="N",
        help="first N rows of the list, words and syllables as they come (default: all of a list given with "
        "--words; of the bundled one 1024 words)",
    )  # fmt: skip
    add(
        "--num_words", type=int, metavar="N",
        help="instead of --num_tokens: first N words (default beside --syllables: 1024, or all of fewer)",
    )  # fmt: skip
    add(
        "--syllables", type=int, metavar="M",
        help='and first M rows with "syllable" (default beside --num_words: 0)',
    )  # fmt: skip
    add(
        "--init", choices=INITS,
        help=f"how new rows are made (default: {DEFAULT}, the best of those that run no model): "
        + "; ".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items()),
    )  # fmt: skip
    add(
        "--contexts", nargs="+", default=[], metavar="CORPUS",
        help="for --init distill: texts with the words (default: sentences of the bundled list of words)",
    )  # fmt: skip
    add(
        "--contexts_per_word", type=int, metavar="K",
        help="how many are learned from (default: 25); compare_inits: measured at (default: 8)",
    )  # fmt: skip
    add(
        "--dictionary", type=Path, metavar="FILE",
        help='for --init english: lines English TAB Vietnamese, or .jsonl rows with "word" and "en"',
    )  # fmt: skip
    add(
        "--measure", action="store_true",
        help="run the model, print what new tokens take of text where they do not belong, write nothing if "
        "that is too much (--init distill does so in any case)",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="for --init random and distill (default: %(default)s)")
    add = parser.add_argument_group("verify_edit, compare_inits").add_argument
    add(
        "--texts", nargs="+", metavar="CORPUS",
        help="texts to check with, all that build_vocab.py counts (default: the bundled ones)",
    )  # fmt: skip
    add("--dtype", help="number type of the model runs (default: float32 below 1 B parameters)")
    add(
        "--inits",
        nargs="+",
        choices=INITS,
        default=[],
        help="ways to compare (default: all that can be made)",
    )
    add = parser.add_argument_group("export_gguf").add_argument
    add("--outtype", choices=("bf16", "f16", "f32", "q8_0"), help="default: the checkpoint's own type")
    add = parser.add_argument_group("view_embeddings").add_argument
    add(
        "--tokens", nargs="+", default=[], metavar="TEXT",
        help="tokens to show and whose nearest neighbours to list",
    )  # fmt: skip
    add(
        "--plot", type=Path, metavar="FILE", help="write a PNG: rows in two dimensions, histogram of norms"
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one task; return the exit status."""
    args = build_parser().parse_args(argv)
    from vocabkit.outputs import command_line
    from vocabkit.tasks import run_task

    made_by = command_line("model_edit.py", sys.argv[1:] if argv is None else argv)
    return run_task(args, ALIASES.get(args.task, args.task), made_by=made_by)


if __name__ == "__main__":
    run_cli(main)
