#!/usr/bin/env python3
"""What a model loses by reading and writing words as one token, for rows made in several ways.

New rows for the first --words words of a list are made by the formulas and by `distill`, with several numbers
of contexts a word. All are measured on lines that none of them has seen (one in four,
vocabkit/rows/contexts.py):

    input    mean KL(old tokens ∥ new) of the next old token, at six places from the end of the word on
    output   Huber loss of log p(word) − Σ log p(its old tokens), where a new word begins
    mass     −log(1 − p(any new word)) where the text goes on with an old token

Contexts have all new words they hold as one token. The last line is the table as JSON.

    python3 benchmarks/distill.py -m envizh-lm__trimm_vocab
    python3 benchmarks/distill.py -m envizh-lm__trimm_vocab --words 64 --contexts_per_word 2 25
"""

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.errors import run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
FORMULAS = ("zeros", "mean", "weighted", "first_last")
TEST_CONTEXTS = 10


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("-m", "--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument(
        "--texts", nargs="+", default=[str(ASSETS / "corpora" / "vi")], help="Vietnamese texts"
    )
    parser.add_argument("--words", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument(
        "--contexts_per_word", type=int, nargs="+", default=[25], help="to learn from (default: 25)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Make rows, measure them, print the table; return the exit status."""
    args = build_parser().parse_args(argv)
    from vocabkit.checkpoint.folder import open_folder
    from vocabkit.checkpoint.numbers import as_float32
    from vocabkit.corpus.files import find_sources
    from vocabkit.models.load import silence
    from vocabkit.models.word_model import load_word_model, rows_of_tensors
    from vocabkit.rows.contexts import TaughtContexts, find_contexts
    from vocabkit.rows.elsewhere import find_other_texts
    from vocabkit.rows.leak import read_places
    from vocabkit.rows.lessons import Settings, Teacher
    from vocabkit.rows.make import Origin, make_rows
    from vocabkit.tokenizer.encoder import extended, load_encoder
    from vocabkit.vocab.word_list import WORDS, read_words

    silence()
    source = open_folder(args.model)
    contents = [f" {word}" for word in read_words(WORDS, count=args.words)]
    encoders = load_encoder(args.model), extended(source.tokenizer, contents)
    sources = find_sources(args.texts)
    test = find_contexts(sources, contents, *encoders, per_word=TEST_CONTEXTS, part="test")
    origin = Origin(source)
    ways = [(init, 0) for init in FORMULAS] + [("distill", count) for count in args.contexts_per_word]
    teacher, table = None, []
    for init, count in ways:
        started, taught = time.process_time(), None
        if init == "distill":
            found = find_contexts(sources, contents, *encoders, per_word=count)
            taught = TaughtContexts(found, [], sources, encoders[1], Path(tempfile.mkdtemp()) / "state")
            started = time.process_time()
        stored, facts = make_rows(origin, contents, init=init, taught=taught)
        seconds = time.process_time() - started
        values = {name: as_float32(raw, source.checkpoint.tensors[name]) for name, raw in stored.items()}
        rows = rows_of_tensors(source.tensors, values)
        if teacher is None:
            first_new = max(source.tokenizer.tokens) + 1
            model = load_word_model(args.model, rows, first_new=first_new)
            n_tokens = len(source.tokenizer.tokens)
            other = find_other_texts(args.model, *encoders, first_new=n_tokens, corpora=sources).test
            places = [read_places(model, some) for some in other.values()]
            teacher = Teacher(model, test, places, settings=Settings())
        model.use(rows)
        losses = teacher.mean_losses()
        name = f"distill, {count} contexts" if count else init
        table.append({"init": name, **losses, "seconds": seconds, "steps": facts.get("steps", 0)})
        print(
            f"{name:22} input {losses['input']:.4f}  output {losses['output']:.3f}  "
            f"mass {losses['mass']:.4f}  other {losses['other']:.4f}  {seconds:7.1f} s of processor time",
            flush=True,
        )
    print(
        json.dumps(
            {"date": f"{date.today()}", "words": args.words, "test_contexts": len(test), "table": table}
        )
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
