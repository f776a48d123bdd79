"""What extend_vocab needs to distil rows: which texts are read, the contexts found in them, rows in and out.

Reads the texts, hands contexts and starting rows to vocabkit/distill.py, which runs the model. Writes nothing
itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit import corpus
from vocabkit.contexts import Context, counts_of, find_contexts
from vocabkit.edit import DATA, Source
from vocabkit.embed_init import RowStats
from vocabkit.errors import UserError

EXAMPLES = DATA / "vi_words_similarity.jsonl"
CONTEXTS_PER_WORD = 25
DEFAULT = "weighted"  # the best of those that run no model, on both sides together
START = "weighted"  # what rows are before they are distilled


@dataclass(frozen=True)
class Lessons:
    """The contexts that rows are distilled from; counts: how many each new token has.

    state_file: where an unfinished distilling is kept, from which the same command goes on.
    """

    contexts: list[Context]
    counts: list[int]
    texts: list[dict[str, Any]]
    state_file: Path


def choose_init(init: str | None, contexts: Sequence[str]) -> tuple[str, list[str]]:
    """Return the init that is meant, DEFAULT where none is given, and the texts to distil from.

    Raises UserError for texts with an init that reads none, and for `distill` without any.
    """
    if contexts and init is None:
        print(f"--contexts are read by --init distill alone: rows are {DEFAULT} means")
    if contexts and init not in (None, "distill"):
        raise UserError(f"--init {init} reads no texts; leave --contexts out, or take --init distill")
    if init != "distill":
        return init or DEFAULT, []
    bundled = [str(EXAMPLES)] if EXAMPLES.is_file() else []
    if not contexts and not bundled:
        raise UserError("--init distill learns from texts: give Vietnamese files or folders with --contexts")
    return init, list(contexts) or bundled


def find_lessons(
    texts: Sequence[str],
    contents: Sequence[str],
    *,
    old_encoder: Any,
    new_encoder: Any,
    ids: Sequence[int],
    state_file: Path,
    per_word: int | None = None,
    seed: int = 0,
) -> Lessons:
    """Return up to per_word (None: CONTEXTS_PER_WORD) contexts of each new token.

    ids: those of the new tokens in new_encoder. UserError where no text has any of them.
    """
    per_word = CONTEXTS_PER_WORD if per_word is None else per_word
    if per_word < 1:
        raise UserError(f"--contexts_per_word is {per_word}, expected 1 or more, such as {CONTEXTS_PER_WORD}")
    sources = corpus.find_sources(texts)
    found = find_contexts(sources, contents, old_encoder, new_encoder, per_word=per_word, seed=seed, ids=ids)
    if not found:
        raise UserError(
            f"{', '.join(texts)}: none of the {len(contents):,} new tokens stands in the part that is "
            f"learned from (three lines in four); give other --contexts, or --init {DEFAULT}"
        )
    counts = counts_of(found, len(contents))
    print(
        f"contexts  {len(found):>13,} of {len(contents) - counts.count(0):,} new tokens; "
        f"{counts.count(0):,} stand in no text and keep their {START} rows"
    )
    named = [{"name": Path(source.name).name, "size": source.size} for source in sources]
    return Lessons(found, counts, named, state_file)


def distil_rows(
    model: Source,
    rows: Mapping[str, np.ndarray],
    stats: Mapping[str, RowStats],
    lessons: Lessons,
    *,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return tensor → (W, D) float32 after distilling, and what is to be recorded of it.

    rows: what they are before, (W, 1) for a bias of the head; stats: of the old rows of every matrix.
    """
    from vocabkit.distill import Start, distill
    from vocabkit.model import silence

    silence()
    head = {tensor.name: len(tensor.shape) for tensor in model.tensors.head}
    output = next((name for name, dimensions in head.items() if dimensions > 1), None)
    bias = next((name for name, dimensions in head.items() if dimensions == 1), None)
    embed = model.tensors.embed[0].name
    names = [embed] + ([output] if output else [])
    start = Start(
        rows[embed],
        rows[output] if output else None,
        rows[bias].reshape(-1) if bias else None,
        limits=[(stats[name].smallest, stats[name].largest) for name in names],
        spread=[float(np.sqrt(np.mean(stats[name].std ** 2))) for name in names],
    )
    # Ids of the extended tokenizer → rows of the model: its holes are closed there, and new ids follow.
    old = list(model.tokenizer.tokens)
    first_new = old[-1] + 1
    contexts = [
        replace(
            context,
            new_ids=tuple(i - len(old) + first_new if i >= len(old) else old[i] for i in context.new_ids),
        )
        for context in lessons.contexts
    ]
    done = distill(
        model.folder, contexts, start, first_new=first_new, state_file=lessons.state_file, seed=seed
    )
    made = dict(rows)
    for tensor in model.tensors.embed:
        made[tensor.name] = done.input
    if output and done.output is not None:
        made[output] = done.output
    facts = {
        "start": START,
        "seed": seed,
        "texts": lessons.texts,
        "contexts": lessons.counts,
        "without_contexts": lessons.counts.count(0),
        **done.facts,
    }
    return made, facts
