#!/usr/bin/env python3
"""Choose the tokens that a corpus uses: count them, apply the text rules, write lists for trimm_vocab.

    python3 build_vocab.py -m ../Qwen2.5-1.5B-Instruct CORPUS... -o data/qwen__1000__20000
    python3 build_vocab.py -m ../Qwen2.5-1.5B-Instruct CORPUS... --target_size 96000
    python3 build_vocab.py -m ../Qwen2.5-1.5B-Instruct CORPUS... --count_only -o counts.json.xz
    python3 build_vocab.py -m ../Qwen2.5-1.5B-Instruct --counts counts.json.xz
    python3 build_vocab.py -m ../gemma-2-2b-it --counts counts.json.xz --counts_of ../Qwen2.5-1.5B-Instruct

CORPUS: files and folders of .txt, .jsonl, .json, .csv, .tsv (each also .xz .gz .zst .bz2), .parquet, .arrow,
hf:NAME[:config[:split]], or - for standard input. A run that was interrupted goes on where it stopped when
the same command is given again. The lists may be edited (move lines between files) before
`model_edit.py -t trimm_vocab --keep FOLDER`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vocabkit.errors import UserError, run_cli

if TYPE_CHECKING:
    from vocabkit.corpus.counting import Progress


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("corpus", nargs="*", metavar="CORPUS", help="texts, see above")
    add("-m", "--model", required=True, help="folder or hub id whose tokenizer counts")
    add("-o", "--out", type=Path, help="new folder of lists (default: data/MODEL__MIN__SURE), or counts file")
    add("--counts", type=Path, metavar="FILE", help="counts made earlier, instead of a corpus")
    add("--counts_of", metavar="MODEL", help="whose ids --counts counts, if not -m's: they are carried over")
    add("--count_only", action="store_true", help="write the counts to -o, choose nothing")
    add("--min_count", type=int, default=1000, help="count of a used token (default: 1000, for 3 G tokens)")
    add("--sure_count", type=int, default=20_000, help="kept whatever the text (default: 20000)")
    add("--target_size", type=int, metavar="N", help="drop the least counted tokens until N are left")
    add("--scripts", nargs="+", metavar="SCRIPT", help="allowed (default: Latin Common Inherited, emoji)")
    add("--text_field", metavar="NAME", help="field or column (default: text; else messages, conversations)")
    add("--workers", type=int, metavar="N", help="counting processes (default: one for each core)")
    add("--max_bad", type=float, default=0.001, help="share of bad records that stops (default: 0.001)")
    add(
        "--engine", choices=("local", "datatrove"), default="local",
        help="datatrove: count as its tasks, which failed ones can be run again of (pip install datatrove)",
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Count and choose; return the exit status."""
    args = build_parser().parse_args(argv)
    if bool(args.corpus) == bool(args.counts):
        raise UserError("give either a CORPUS or --counts FILE; see python3 build_vocab.py --help")
    if args.counts_of and not args.counts:
        raise UserError("--counts_of names the tokenizer of --counts FILE; give that too")
    if args.count_only and (args.counts or not args.out):
        raise UserError("--count_only counts a CORPUS into a file; name it: -o counts.json.xz")
    for name in ("min_count", "sure_count", "workers", "target_size"):
        value = getattr(args, name)
        if value is not None and value < (1 if name in ("workers", "target_size") else 0):
            raise UserError(f"--{name} is {value}, expected a positive number")
    if not 0 <= args.max_bad <= 1:
        raise UserError(f"--max_bad is {args.max_bad}, expected a share from 0 to 1, such as 0.001")
    from vocabkit.checkpoint.hub import local_folder
    from vocabkit.outputs import publication

    model = local_folder(args.model)
    name = Path(args.model).resolve().name if Path(args.model).exists() else args.model.split("/")[-1]
    out = args.out or Path("data") / f"{name}__{args.min_count}__{args.sure_count}"
    out.parent.mkdir(exist_ok=True)
    with publication([out], resume=True) as part:
        work, make = part.folder, _count if args.count_only else _build
        print_result = make(args, model, part.places[0], work=work)
    print_result(out)
    return 0


def _count(args: argparse.Namespace, model: Path, new: Path, *, work: Path) -> Callable[[Path], None]:
    from vocabkit.counts.files import write_counts

    progress = _counted(args, model, work)
    write_counts(new, progress, model=model, corpus=args.corpus)
    total = int(progress.vector.sum())
    return lambda out: print(f"{out}: {total:,} tokens of {progress.documents:,} documents")


def _counted(args: argparse.Namespace, model: Path, work: Path) -> "Progress":
    """Count the corpus; work: the folder from which the same command goes on."""
    from vocabkit.counts.tokens import count_corpus

    options = {"text_field": args.text_field, "workers": args.workers, "max_bad": args.max_bad}
    if args.engine == "datatrove":
        from vocabkit.counts.datatrove import count_with_datatrove

        return count_with_datatrove(model, args.corpus, work=work / "tasks", **options)
    return count_corpus(model, args.corpus, progress_file=work / "progress.json", **options)


def _build(args: argparse.Namespace, model: Path, new: Path, *, work: Path) -> Callable[[Path], None]:
    from vocabkit.checkpoint.hub import local_folder
    from vocabkit.counts.carry import counts_made_earlier
    from vocabkit.counts.files import counts_about
    from vocabkit.outputs import command_line
    from vocabkit.text.unicode import DEFAULT_SCRIPTS
    from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
    from vocabkit.vocab.lists import build_lists

    tokenizer = read_tokenizer_json(model)
    if args.counts:
        counted = read_tokenizer_json(local_folder(args.counts_of)) if args.counts_of else tokenizer
        counts, about = counts_made_earlier(args.counts, counted, tokenizer)
    else:
        progress = _counted(args, model, work)
        counts, about = counts_about(progress, corpus=args.corpus)
    summary = build_lists(
        model,
        tokenizer,
        counts,
        new,
        made_from=about,
        command=command_line("python3 build_vocab.py", sys.argv[1:]),
        scripts=frozenset(args.scripts) if args.scripts else DEFAULT_SCRIPTS,
        min_count=args.min_count,
        sure_count=args.sure_count,
        target_size=args.target_size,
    )

    def print_result(out: Path) -> None:
        print(
            f"{out}: {summary['tokens_kept']:,} tokens listed, {summary['tokens_with_closure']:,} with what "
            f"always stays, covering {summary['covered_share']:.3%} of {summary['counted_tokens']:,}"
        )
        print(f"look at {out / 'report.html'}")
        print(f"then: python3 model_edit.py -m {args.model} -t trimm_vocab --keep {out}")

    return print_result


if __name__ == "__main__":
    run_cli(main)
