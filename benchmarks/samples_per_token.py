#!/usr/bin/env python3
"""How many samples does a new token need? Distil the rows of new words from 0, 5, 25, … contexts each.

The rows begin as --init makes them and are distilled as extend_vocab --init distill does it
(vocabkit/rows/distill.py): the model is frozen, and each context has one new word, its own. Everything is
measured on lines that are kept for testing.

Two groups of words, because few are frequent enough for the largest number: words with at least the last
number but one of --samples, and words with at least --fewest, which get as many as they have, up to the
largest. Two schedules: "updates" gives each number of samples the same optimizer steps, so that only what the
samples hold differs; "passes" goes over the samples --passes times, so that few samples also cost less.

    kl         KL(base || edited) of the next token after the word, over old tokens, nats
    |Δ log p|  |log p(new word) − Σ log p(its old tokens)|, nats
    write      bits of the word itself, edited / base: 1 is as cheap as its old tokens were
    read       bits of up to 16 tokens after it, edited / base
    greedy, sampled  share of continuations, from the text just before the word on, in which it comes: as
               the new token; in brackets spelled in old tokens
    fluent     share of the words that are used fluently: write and read both within 5 % of the base's, on
               either side (a word that is too likely here takes probability elsewhere)

"So many samples are enough" is said where at least half of the words are used fluently. The last line is the
table as JSON.

    python3 benchmarks/samples_per_token.py --plot samples.png
    python3 benchmarks/samples_per_token.py --model ../MODEL__trimm_vocab --corpus my.jsonl --samples 0 10 100
"""

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.errors import UserError, run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
FLUENT = 0.05  # how far the bits of a fluent word may be from the base's, as a share of them
TEST_CONTEXTS = 8  # of each word
AFTER = 16  # tokens after a word whose bits are counted
BATCH = 32  # texts that are continued at once
NEW_TOKENS = 8  # of a continuation
SAMPLED = 3  # continuations of a prompt by chance
PROMPTS = 2  # of each word


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", type=Path, help="trimmed folder (default: envizh-lm, trimmed into a temporary folder)")
    add("--corpus", nargs="+", default=[str(ASSETS / "corpora" / "vi")], help="Vietnamese texts")
    add("--words", type=Path, help="file of words (default: the bundled list)")
    add("--num_words", type=int, default=60, help="candidates, from the first on (default: %(default)s)")
    add("--max_words", type=int, default=24, help="words of a group at most (default: %(default)s)")
    add("--samples", type=int, nargs="+", default=[0, 5, 25, 100, 500], help="contexts per word")
    add("--fewest", type=int, default=350, help="contexts that words of the last group have at least")
    add("--init", default="weighted", help="rows to start from (default: %(default)s)")
    add(
        "--updates", type=int, default=200, help="of each word's row, schedule updates (default: %(default)s)"
    )
    add("--passes", type=int, default=3, help="over the samples, schedule passes (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--plot", type=Path, metavar="PNG")
    return parser


def alone(context: Any, word: int, *, first_new: int) -> Any:
    """Return a context with its own word as the only new one, under another number: the others around it are
    spelled in old tokens.
    """
    begin, end = context.old_span(context.own_at)
    old = context.old_ids
    return type(context)(
        word=word,
        text=context.text,
        old_ids=old,
        new_ids=(*old[:begin], first_new + word, *old[end:]),
        aligned=(*range(begin), *range(end - 1, len(old))),
        new_at=(begin,),
        own_at=begin,
    )


def choose_samples(
    contexts: Sequence[Any], samples: int, *, words: Sequence[int], first_new: int
) -> list[Any]:
    """Return the first so many contexts of each of these words, numbered from 0 on in their order."""
    number = {word: at for at, word in enumerate(words)}
    taken = dict.fromkeys(number, 0)
    chosen = []
    for context in contexts:
        if context.word in number and taken[context.word] < samples:
            taken[context.word] += 1
            chosen.append(alone(context, number[context.word], first_new=first_new))
    return chosen


def fluency(model: Any, gaps: Sequence[Any]) -> dict[str, Any]:
    """Return "write" and "read" as Estimates, bits of the word, and of AFTER tokens after it, edited / base,
    all bits of one word being one observation; and "fluent", the share of words where both are near 1.
    """
    import torch

    from vocabkit.rows.estimates import mean_by_cluster, ratio_by_cluster
    from vocabkit.rows.measures import log_probabilities

    nats: dict[str, dict[int, list[float]]] = {"write": {}, "read": {}}
    with torch.inference_mode():
        for column, words in enumerate((True, False)):
            fillings = [[model.first_new + gap.word] if words else list(gap.pieces) for gap in gaps]
            rights = [list(gap.right[:AFTER]) for gap in gaps]
            counts = [len(f) + len(r) for f, r in zip(fillings, rights, strict=True)]
            parts = zip(gaps, fillings, rights, strict=True)
            sequences = [[*gap.left, *filling, *right] for gap, filling, right in parts]
            log_p = log_probabilities(model, sequences, counts, words=words)
            for gap, filling, said in zip(gaps, fillings, log_p, strict=True):
                for name, part in (("write", said[: len(filling)]), ("read", said[len(filling) :])):
                    nats[name].setdefault(gap.word, [0.0, 0.0])[column] -= part.sum().item()
    result = {name: ratio_by_cluster(*zip(*by_word.values(), strict=True)) for name, by_word in nats.items()}
    fluent = [
        all(abs(nats[name][word][0] / nats[name][word][1] - 1) <= FLUENT for name in nats)
        for word in nats["write"]
    ]
    return {**result, "fluent": mean_by_cluster(fluent, list(nats["write"]))}


def continue_text(
    model: Any, prompts: Sequence[Sequence[int]], *, words: bool, seed: int | None
) -> list[list[int]]:
    """Return NEW_TOKENS ids after each prompt: the likeliest ones, or drawn by chance with a seed."""
    import torch

    generator = torch.Generator().manual_seed(seed or 0)
    found = []
    with torch.inference_mode():
        for at in range(0, len(prompts), BATCH):
            texts = [list(prompt) for prompt in prompts[at : at + BATCH]]
            for _ in range(NEW_TOKENS):
                logits = model.read(texts, [[len(text)] for text in texts], words=words).logits.float()
                if seed is None:
                    chosen = logits.argmax(1)
                else:
                    chosen = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
                for text, token in zip(texts, chosen.tolist(), strict=True):
                    text.append(token)
            found += [text[-NEW_TOKENS:] for text in texts]
    return found


def comes(ids: Sequence[int], gap: Any, *, first_new: int) -> tuple[bool, bool]:
    """Return whether a continuation has the word as the new token, and whether it has it as old tokens."""
    pieces = list(gap.pieces)
    spelled = any(list(ids[at : at + len(pieces)]) == pieces for at in range(len(ids)))
    return first_new + gap.word in ids, spelled


def appearances(model: Any, gaps: Sequence[Any], *, words: bool, seed: int) -> dict[str, list[float]]:
    """Return "greedy" and "sampled": the shares of continuations with the word as new token, as old ones."""
    taken = dict.fromkeys((gap.word for gap in gaps), 0)
    prompts = []
    for gap in gaps:
        taken[gap.word] += 1
        if taken[gap.word] <= PROMPTS:
            prompts.append(gap)
    result = {}
    for name, copies, chance in (("greedy", 1, None), ("sampled", SAMPLED, seed)):
        several = [gap for gap in prompts for _ in range(copies)]
        texts = continue_text(model, [gap.left for gap in several], words=words, seed=chance)
        pairs = [comes(ids, gap, first_new=model.first_new) for ids, gap in zip(texts, several, strict=True)]
        result[name] = [sum(each) / len(pairs) for each in zip(*pairs, strict=True)]
    return result


def measure(model: Any, gaps: Sequence[Any], rows: Any, *, seed: int) -> dict[str, Any]:
    """Return every measure of the model with these rows."""
    from vocabkit.rows.measures import measure_contexts

    found = measure_contexts(model, {"edited": rows}, gaps, base="base")["edited"]
    model.use(rows)
    result = {"kl": found["input_kl"], "abs_log_ratio": found["output_log_ratio_abs"], **fluency(model, gaps)}
    return {
        **{name: [estimate.value, estimate.standard_error] for name, estimate in result.items()},
        **appearances(model, gaps, words=True, seed=seed),
    }


def is_enough(row: dict[str, Any]) -> bool:
    """Whether at least half of the words are used fluently."""
    return row["fluent"][0] >= 0.5


@contextlib.contextmanager
def trimmed_envizh() -> Iterator[Path]:
    """Give envizh-lm, expanded and trimmed into a temporary folder."""
    from vocabkit.edit.trim import trim_vocab

    expand = ASSETS / "models" / "envizh-lm" / "expand.py"
    if not expand.is_file():
        raise UserError(f"{expand} is missing; set VOCABKIT_ASSETS, or give a trimmed folder with --model")
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, str(expand), f"{place}/base"], check=True, capture_output=True)
        with contextlib.redirect_stdout(None):
            trim_vocab(Path(place, "base"), Path(place, "model"))
        yield Path(place, "model")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = build_parser().parse_args(argv)
    numbers = sorted(set(args.samples))
    if len(numbers) < 3 or numbers[0] < 0:
        raise UserError(f"--samples {numbers} are too few; give three numbers or more, such as 0 10 100")
    from vocabkit.look.plots import new_figure

    figure = new_figure(args.plot) if args.plot else None
    with contextlib.nullcontext(args.model) if args.model else trimmed_envizh() as folder:
        rows = run(args, folder, numbers)
    if figure:
        draw(figure, rows)
        figure.savefig(args.plot, format="png", dpi=130)
    about = {"benchmark": "samples_per_token", "date": f"{date.today()}", "fluent": FLUENT}
    print(json.dumps({**about, "seed": args.seed, "rows": rows}))
    return 0


def run(args: argparse.Namespace, folder: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Distil, measure and print every group, schedule and number of samples; return the rows of the table."""
    from vocabkit.checkpoint.folder import open_folder
    from vocabkit.checkpoint.numbers import as_float32, stats_of
    from vocabkit.corpus.files import find_sources
    from vocabkit.models.load import silence
    from vocabkit.models.word_model import Rows, load_word_model, rows_of_tensors
    from vocabkit.rows.contexts import counts_of, find_contexts
    from vocabkit.rows.distill import Trainer
    from vocabkit.rows.elsewhere import find_other_texts
    from vocabkit.rows.leak import read_places
    from vocabkit.rows.lessons import Settings
    from vocabkit.rows.make import Origin, make_rows
    from vocabkit.rows.measures import gap_of
    from vocabkit.tokenizer.encoder import extended, load_encoder
    from vocabkit.vocab.word_list import WORDS, read_words

    silence()
    source = open_folder(folder)
    listed = read_words(args.words or WORDS, count=args.num_words)
    contents = [f" {word}" for word in listed]
    encoders = load_encoder(folder), extended(source.tokenizer, contents)
    sources = find_sources(args.corpus)
    train = find_contexts(sources, contents, *encoders, per_word=numbers[-1])
    test = find_contexts(sources, contents, *encoders, per_word=TEST_CONTEXTS, part="test")
    counts, tested = counts_of(train, len(listed)), counts_of(test, len(listed))
    tokens = list(source.tokenizer.tokens)
    first_new = tokens[-1] + 1
    stats = [
        stats_of(tensor, tokens)
        for tensor in (source.tensors.embed[0], *source.tensors.head)
        if len(tensor.shape) > 1
    ]
    other = find_other_texts(folder, *encoders, first_new=len(tokens), corpora=sources).train
    table = []
    for largest, fewest in ((numbers[-2], numbers[-2]), (numbers[-1], min(args.fewest, numbers[-1]))):
        able = [w for w in range(len(listed)) if counts[w] >= fewest and tested[w]]
        words = sorted(able, key=lambda word: -counts[word])[: args.max_words]
        if not words:
            print(f"no word has {fewest:,} contexts in {' '.join(args.corpus)}")
            continue
        own = [gap_of(c) for c in choose_samples(test, TEST_CONTEXTS, words=words, first_new=first_new)]
        stored, _ = make_rows(
            Origin(source), [contents[word] for word in words], init=args.init, seed=args.seed
        )
        values = {name: as_float32(raw, source.checkpoint.tensors[name]) for name, raw in stored.items()}
        start = rows_of_tensors(source.tensors, values)
        model = load_word_model(folder, start, first_new=first_new)
        places = [read_places(model, some) for some in other.values()]
        base = appearances(model, own, words=False, seed=args.seed)
        print(f"\n{len(words)} words with {fewest:,} contexts or more, {len(own)} contexts to test with")
        print(HEAD)
        print(f"{'base':10}{'':9}{0:9.4f}{'':8}{0:9.2f}{'':8}{1:7.2f}{'':7}{1:7.2f}{'':7}", end="")
        print("".join(f"      ({base[name][1]:4.0%})" for name in ("greedy", "sampled")))
        for schedule in ("updates", "passes"):
            for samples in numbers[: numbers.index(largest) + 1]:
                if samples == 0 and schedule == "passes":
                    continue  # the same
                begun = time.process_time()
                model.use(start)
                chosen = choose_samples(train, samples, words=words, first_new=first_new)
                steps = 0
                if chosen:
                    settings = Settings(epochs=args.passes)
                    steps = math.ceil(args.updates * len(words) / settings.batch)
                    trainer = Trainer(
                        model, chosen, places, stats=stats, settings=settings, seed=args.seed,
                        steps=steps if schedule == "updates" else None,
                    )  # fmt: skip
                    trainer.train()
                    steps = trainer.done
                made = [rows.detach().cpu().numpy().copy() for rows in model.rows]
                rows = Rows(made[0], None if model.tied else made[1], start.bias)
                row = {
                    "words": len(words), "schedule": schedule, "samples": samples, "steps": steps,
                    **measure(model, own, rows, seed=args.seed), "base": base,
                }  # fmt: skip
                row |= {"enough": is_enough(row), "seconds": round(time.process_time() - begun, 1)}
                table.append(row)
                print(line_of(row), flush=True)
        print(verdict(table, len(words)))
    return table


HEAD = (
    f"{'schedule':10}{'samples':>9}{'kl':>9}{'':8}{'|Δ log p|':>9}{'':8}{'write':>7}{'':7}{'read':>7}{'':7}"
    f"{'greedy':>12}{'sampled':>12}{'fluent':>8}{'steps':>7}"
)


def line_of(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [f"{row['schedule']:10}{row['samples']:9,}"]
    for name, width, decimals in (("kl", 9, 4), ("abs_log_ratio", 9, 2), ("write", 7, 2), ("read", 7, 2)):
        value, error = row[name]
        shown = "" if error is None else f" ±{error:.{decimals}f}"
        cells.append(f"{value:{width}.{decimals}f}{shown:{8 if width == 9 else 7}}")
    for name in ("greedy", "sampled"):
        new, old = row[name]
        cells.append(f"{new:5.0%} ({old:4.0%})")
    return f"{''.join(cells)}{row['fluent'][0]:8.0%}{row['steps']:7,}"


def verdict(table: Sequence[dict[str, Any]], words: int) -> str:
    """Return in words how many samples are enough, and when the word is first written."""
    said = []
    for schedule in dict.fromkeys(row["schedule"] for row in table):
        rows = [row for row in table if row["words"] == words and row["schedule"] == schedule]
        fluent = next((f"{row['samples']:,} samples" for row in rows if row["enough"]), "none of these")
        first = next((f"{row['samples']:,}" for row in rows if row["greedy"][0] > 0), "none")
        said.append(
            f"{schedule}: half of the words fluent from {fluent} on, first written (greedy) with {first}"
        )
    return "; ".join(said)


def draw(figure: Any, table: Sequence[dict[str, Any]]) -> None:
    """Draw the measures over the number of samples, a line for each group and schedule."""
    figure.set_size_inches(13, 7)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(2, 3).flat
    titles = {
        "kl": "input KL, nats", "abs_log_ratio": "|Δ log p|, nats", "write": "bits of the word / base",
        "read": "bits after the word / base", "greedy": "greedy: word comes as new token",
        "fluent": "share of words used fluently",
    }  # fmt: skip
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for key in dict.fromkeys((row["words"], row["schedule"]) for row in table):
            rows = [row for row in table if (row["words"], row["schedule"]) == key]
            label = f"{key[0]} words, same {key[1]}"
            at, values = [row["samples"] for row in rows], [row[name][0] for row in rows]
            if name == "greedy":
                axes.plot(at, values, marker="o", markersize=3, label=label)
                axes.axhline(rows[0]["base"][name][1], color="#8C8C8C", linewidth=1, linestyle=":")
            else:
                errors = [row[name][1] or 0 for row in rows]
                axes.errorbar(at, values, yerr=errors, marker="o", markersize=3, capsize=2, label=label)
        if name in ("write", "read"):
            axes.axhline(1, color="#D55E00", linewidth=1, linestyle="--")
        axes.set_xscale("symlog", linthresh=5)
        axes.set_xlabel("contexts per word")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)


if __name__ == "__main__":
    run_cli(main)
