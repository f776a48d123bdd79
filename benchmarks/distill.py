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
    import torch

    from vocabkit.checkpoint.folder import open_folder
    from vocabkit.checkpoint.numbers import as_float32
    from vocabkit.corpus.files import find_sources
    from vocabkit.models.load import silence
    from vocabkit.models.word_model import WordModel
    from vocabkit.rows.contexts import Lessons, find_contexts
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
        started, lessons = time.process_time(), None
        if init == "distill":
            found = find_contexts(sources, contents, *encoders, per_word=count)
            lessons = Lessons(found, [], [], Path(tempfile.mkdtemp()) / "state")
            started = time.process_time()
        stored, facts = make_rows(origin, contents, init=init, lessons=lessons)
        seconds = time.process_time() - started
        rows = [as_float32(stored[t.name], t) for t in (*source.tensors.embed, *source.tensors.head)]
        matrices = [values for values in rows if values.shape[1] > 1]
        if teacher is None:
            model = WordModel(
                args.model, first_new=max(source.tokenizer.tokens) + 1, input_rows=matrices[0],
                output_rows=None if source.tensors.tied else matrices[1],
            )  # fmt: skip
            teacher = Teacher(model, test, settings=Settings())
        with torch.no_grad():
            for parameter, values in zip(teacher.model.rows, matrices, strict=False):
                parameter.copy_(torch.from_numpy(values))
        losses = teacher.mean_losses()
        name = f"distill, {count} contexts" if count else init
        table.append({"init": name, **losses, "seconds": seconds, "steps": facts.get("steps", 0)})
        print(
            f"{name:22} input {losses['input']:.4f}  output {losses['output']:.3f}  "
            f"mass {losses['mass']:.4f}  {seconds:7.1f} s of processor time",
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
