#!/usr/bin/env python3
"""Edit the vocabulary of a checkpoint, verify the edit, look at what came out.

Reads a Hugging Face folder (-m) and, for some tasks, the folder it came from (-b); trimm_vocab writes a new
folder, verify_edit writes verify_report.json into the edited one, the other tasks only print.

    python3 model_edit.py -m ../Qwen2.5-1.5B-Instruct -t trimm_vocab
    python3 model_edit.py -m Qwen/Qwen2.5-7B-Instruct -t trimm_vocab -o out
    python3 model_edit.py -b ../Qwen2.5-1.5B-Instruct -m ../Qwen2.5-1.5B-Instruct__trimm_vocab -t verify_edit
    python3 model_edit.py -m ../Qwen2.5-1.5B-Instruct -t view_embeddings --tokens " Việt" --plot rows.png
    python3 model_edit.py -t compare_vocab -m ../Qwen2.5-0.5B-Instruct -b ../Qwen2.5-7B-Instruct
"""

import argparse
import sys
from pathlib import Path

from vocabkit.errors import UserError, run_cli

TASKS = ("trimm_vocab", "verify_edit", "view_embeddings", "compare_vocab")
ALIASES = {"trim_vocab": "trimm_vocab"}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "-m", "--model", required=True, help="checkpoint folder, or a hub id (downloaded first)"
    )
    parser.add_argument("-t", "--task", required=True, choices=[*TASKS, *ALIASES], help="what to do")
    parser.add_argument("-b", "--base", help="the checkpoint to compare with: the source of an edited folder")
    parser.add_argument("-o", "--out", type=Path, help="new folder (default: MODEL__TASK); must not exist")
    trim = parser.add_argument_group("trimm_vocab")
    trim.add_argument(
        "--keep", nargs="+", type=Path, default=[], metavar="DIR_OR_FILE",
        help="kept lists: folders of tokens_kept__*.jsonl, .jsonl rows [token, id, count], .txt or .json of "
        "ids (default: the bundled list made for this tokenizer, else the text rules alone)",
    )  # fmt: skip
    trim.add_argument(
        "--pad_multiple",
        type=int,
        default=64,
        help="rows are a multiple of this (default: %(default)s, what GPU kernels and vLLM like)",
    )  # noqa: E501
    trim.add_argument(
        "--allow_all_bytes", action="store_true", help="let generate() spell removed scripts by bytes"
    )
    trim.add_argument(
        "--hardlink", action="store_true", help="link unchanged weight files instead of copying them"
    )
    trim.add_argument(
        "--dry_run", action="store_true", help="print what would be kept and saved, write nothing"
    )
    verify = parser.add_argument_group("verify_edit")
    verify.add_argument(
        "--texts",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="texts to check with: .txt, .jsonl, .tsv, folders; .gz .xz .bz2 (default: the bundled ones)",
    )  # noqa: E501
    verify.add_argument(
        "--dtype", help="number type of the model runs (default: float32 below 1 B parameters)"
    )
    view = parser.add_argument_group("view_embeddings")
    view.add_argument(
        "--tokens",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="tokens to show and whose nearest neighbours to list",
    )  # noqa: E501
    view.add_argument(
        "--plot", type=Path, metavar="FILE", help="write a PNG: rows in two dimensions, histogram of norms"
    )  # noqa: E501
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one task; return the exit status."""
    args = build_parser().parse_args(argv)
    from vocabkit.hub import local_folder

    task = ALIASES.get(args.task, args.task)
    if task in ("verify_edit", "compare_vocab") and not args.base:
        raise UserError(f"{task} compares two folders: give the other one with -b")
    model = local_folder(args.model)
    base = local_folder(args.base) if args.base else None
    if task == "trimm_vocab":
        return _trim(args, model)
    if task == "verify_edit":
        from vocabkit.ladder import verify_edit

        assert base is not None
        return 0 if verify_edit(base, model, texts=args.texts, dtype=args.dtype) else 1
    if task == "view_embeddings":
        from vocabkit.view import view_embeddings

        view_embeddings(model, base=base, tokens=args.tokens, plot=args.plot)
        return 0
    from vocabkit.compare import compare_vocab

    assert base is not None
    compare_vocab(base, model)
    return 0


def _trim(args: argparse.Namespace, model: Path) -> int:
    from vocabkit.trim import trim_vocab

    if args.pad_multiple < 1:
        raise UserError(f"--pad_multiple is {args.pad_multiple}, expected 1 or more, such as 64")
    # A hub id has no folder of its own to stand beside: the result goes into the current one.
    beside = Path(args.model) if Path(args.model).exists() else Path(Path(args.model).name)
    out = args.out or beside.with_name(
        f"{beside.resolve().name if beside.exists() else beside.name}__trimm_vocab"
    )
    trim_vocab(
        model,
        out,
        keep_paths=args.keep,
        pad_multiple=args.pad_multiple,
        allow_all_bytes=args.allow_all_bytes,
        hardlink=args.hardlink,
        dry_run=args.dry_run,
        made_by="model_edit.py " + " ".join(sys.argv[1:]),
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
