#!/usr/bin/env python3
"""Find the Vietnamese words and syllables that cost many tokens, and choose those worth a token of their own.

    python3 build_vi_words.py -m ../Qwen2.5-1.5B-Instruct CORPUS... -o data/my_words_impact.jsonl.xz
    python3 build_vi_words.py -m ../Qwen2.5-1.5B-Instruct CORPUS... --choose 1024 --syllables 512 -o my.jsonl
    python3 build_vi_words.py -m ../Qwen2.5-1.5B-Instruct CORPUS... --choose 2048 --syllables auto -o a.jsonl
    python3 build_vi_words.py --similarity -m ../Qwen2.5-7B-Instruct --words data/my_words.jsonl -o rows.jsonl
    python3 build_vi_words.py --check_similarity rows.jsonl -m ../Qwen2.5-1.5B-Instruct

The first lists every compound word that pyvi finds in Vietnamese texts, the one whose tokens cost most first.
--choose picks, one after another, the word that saves most tokens beside those already picked; no two of them
overlap, at most 1 % of what each is found in is another word, and a table says what the list saves on one
line in ten of the corpus, on which it was not chosen. --syllables picks among them syllables, each one more
merge of BPE. --similarity has a language model explain words. CORPUS: as for build_vocab.py, all but standard
input for --choose. A run that was interrupted goes on where it stopped when the same command is given again.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from vocabkit.errors import UserError, run_cli
from vocabkit.files import DATA, write_jsonl
from vocabkit.words.explain import run
from vocabkit.words.explain.run import add_options, is_asked

AUTO = "auto"
IMPACT, CHOSEN = DATA / "vi_words_impact.jsonl.xz", DATA / "vi_words_chosen.jsonl"


def _syllables(text: str) -> int | str:
    return text if text == AUTO else int(text)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("corpus", nargs="*", metavar="CORPUS", help="texts, see above")
    add("-m", "--model", help="folder or hub id whose tokenizer counts")
    add(
        "-o",
        "--out",
        type=Path,
        help=f"new file (default: data/{IMPACT.name}, or data/{CHOSEN.name} with --choose)",
    )
    add("--min_freq", type=int, default=5, help="leave out rarer words (default: 5)")
    add("--choose", type=int, metavar="N", help="choose N words")
    add(
        "--syllables", type=_syllables, default=0, metavar="M",
        help=f"choose M syllables too; {AUTO}: N words and syllables together (default: none)",
    )  # fmt: skip
    add("--phrases", action="store_true", help="choose among two and three words in a row as well")
    add("--held_out", nargs="+", metavar="FILE", help="measure on these, choose on all of CORPUS")
    add("--plot", type=Path, metavar="PNG", help="draw what is saved against the number of words")
    add("--text_field", metavar="NAME", help="field or column (default: text; else messages, conversations)")
    add("--workers", type=int, metavar="N", help="processes (default: one for each core), or questions")
    add("--max_bad", type=float, default=0.001, help="share of bad records that stops (default: 0.001)")
    add_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """List or choose words; return the exit status."""
    args = (parser := build_parser()).parse_args(argv)
    if is_asked(args, parser):
        return run.run(args)
    if not (args.model and args.corpus):
        parser.error("the following arguments are required: -m/--model, CORPUS")
    for name in ("min_freq", "choose", "workers"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name} is {value}, expected a positive number")
    if args.syllables != AUTO and args.syllables < 0:
        raise UserError(f"--syllables is {args.syllables}, expected 0 or more, or {AUTO}")
    if not args.choose and (args.held_out or args.plot or args.phrases or args.syllables):
        raise UserError(
            "--held_out, --plot, --phrases, --syllables are for choosing words; say how many: --choose 1024"
        )
    if args.choose and "-" in (args.held_out or []) + args.corpus:
        raise UserError(
            "--choose reads its texts several times, standard input can be read once; give a file"
        )
    if args.held_out and (both := set(args.held_out) & set(args.corpus)):
        raise UserError(f"{both.pop()} is in CORPUS and in --held_out; leave it out of one of them")
    from vocabkit.checkpoint.hub import local_folder
    from vocabkit.outputs import check_new, publication

    model = local_folder(args.model)
    out = args.out or (CHOSEN if args.choose else IMPACT)
    if args.out is None:
        out.parent.mkdir(exist_ok=True)
    if args.plot:
        check_new(args.plot)  # before hours of counting
    with publication([out], resume=True) as part:
        make = _choose if args.choose else _impact
        print_result = make(args, model, part.places[0], work=part.folder)
    print_result(out)
    return 0


def _options(args: argparse.Namespace) -> dict:
    return {"text_field": args.text_field, "workers": args.workers, "max_bad": args.max_bad}


def _impact(args: argparse.Namespace, model: Path, new: Path, *, work: Path) -> Callable[[Path], None]:
    from vocabkit.corpus.files import find_sources
    from vocabkit.tokenizer.encoder import load_encoder
    from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
    from vocabkit.words.count import count_words, require_words, word_rows

    options = {"training_only": False, "progress_file": work / "progress.json", **_options(args)}
    progress = count_words(model, find_sources(args.corpus), **options)
    tokenizer = read_tokenizer_json(model)
    rows = word_rows(progress.vector, tokenizer, load_encoder(model), min_freq=args.min_freq)
    require_words(rows, corpus=args.corpus, min_freq=args.min_freq)
    write_jsonl(new, rows)
    found = f"{len(rows):,} words that come {args.min_freq} times in {progress.characters:,} characters"
    return lambda out: print(f"{out}: {found}")


def _choose(args: argparse.Namespace, model: Path, new: Path, *, work: Path) -> Callable[[Path], None]:
    from vocabkit.corpus.files import find_sources
    from vocabkit.corpus.lines import HELD_OUT, held_out, measured_lines
    from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
    from vocabkit.vocab.word_list import new_token
    from vocabkit.words.choose import Wanted, choose_tokens
    from vocabkit.words.curve import measure_curve, plot_curve

    sources, apart = find_sources(args.corpus), find_sources(args.held_out or [])
    take = (lambda line: True) if apart else functools.partial(held_out, one_in=HELD_OUT)
    lines = measured_lines(apart or sources, take=take, text_field=args.text_field)
    auto = args.syllables == AUTO
    count = args.choose + (0 if auto else args.syllables)
    wanted = Wanted(args.choose, args.choose if auto else args.syllables, count, args.phrases, args.min_freq)
    found = choose_tokens(model, sources, wanted, work=work, training_only=not apart, **_options(args))
    write_jsonl(new, found.rows)
    tokens, impact = ([new_token(row) for row in rows] for rows in (found.rows, found.impact))
    words = sum(isinstance(token, str) for token in tokens)
    if len(tokens) < count:
        print(f"fewer than {count:,}: no other saves anything; give more texts", file=sys.stderr)
    curve = measure_curve(read_tokenizer_json(model), lines, chosen=tokens, impact=impact)
    if args.plot:
        plot_curve(curve, args.plot, title=f"{len(tokens):,} new tokens for {Path(args.model).name}")

    def print_result(out: Path) -> None:
        print(f"{out}: {words:,} of {found.candidates:,} words, {len(tokens) - words:,} syllables; "
              f"{found.refused:,} words refused for more than 1 % false hits")  # fmt: skip
        print(f"tokens saved of {curve.tokens:,}, on Vietnamese lines that nothing was chosen on")
        print(curve.table())

    return print_result


if __name__ == "__main__":
    run_cli(main)
