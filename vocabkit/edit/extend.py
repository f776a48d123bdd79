"""Extend a checkpoint's vocabulary: Vietnamese words and syllables become tokens, with rows made from old
rows.

Reads a Hugging Face folder (trimmed or not), a file of words and, where given, the untrimmed checkpoint; has
a new folder written (vocabkit/edit/write.py). The source is never changed: every old row keeps its bytes,
and text without a new word or a new merge is cut as before. New ids follow the last old one: first the
syllables, tokens that BPE makes itself, then the words, added tokens (tokenizer/tokenizer_json.py says why
in this order).
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vocabkit.checkpoint.folder import Folder, open_folder, without_gc
from vocabkit.edit.write import record_of, writing
from vocabkit.errors import UserError
from vocabkit.files import sha256_file
from vocabkit.outputs import as_published, check_new, part_of
from vocabkit.rows.contexts import find_taught_contexts
from vocabkit.rows.make import Origin, check_base, make_rows, measure_rows
from vocabkit.rows.names import choose_init
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import stored_text
from vocabkit.vocab.new_tokens import checked_encoder, make_merges, make_tokens
from vocabkit.vocab.plan import FOREIGN, Plan, extend_plan
from vocabkit.vocab.word_list import (
    WORDS,
    read_equivalents,
    read_list,
    say_left_out,
)

NUM_WORDS = 1024  # of the bundled list


def extend_vocab(
    model: Path,
    out: Path,
    *,
    base: Path | None = None,
    words: Path | None = None,
    num_tokens: int | None = None,
    num_words: int | None = None,
    syllables: int | None = None,
    init: str | None = None,
    contexts: Sequence[str] = (),
    contexts_per_word: int | None = None,
    dictionary: Path | None = None,
    seed: int = 0,
    measure: bool = False,
    pad_multiple: int = 64,
    hardlink: bool = False,
    dry_run: bool = False,
    made_by: str = "vocabkit",
) -> None:
    """Extend MODEL with words and syllables of a list into OUT; with dry_run print what would be added and
    write nothing.

    words, num_tokens, num_words, syllables: the list and how much of it, see take_list().
    base: the checkpoint that MODEL was trimmed out of, whose rows an init may use where MODEL has lost them.
    measure: run the model on text in which no new token belongs, and write nothing where these take too much
    of it; distilled rows are measured in any case.
    init, contexts: how rows are made and the texts that `distill` reads, see rows.names.choose_init().
    Raises UserError for whatever the user can mend; OUT then does not exist, and the source is as it was.
    """
    if not dry_run:
        check_new(out)
    init, texts = choose_init(init, contexts)
    taken = take_list(words, num_tokens=num_tokens, num_words=num_words, syllables=syllables)
    known = read_equivalents(dictionary, taken.words) if init == "english" else None
    with without_gc():
        source = open_folder(model, to_edit=True)
        encoder = load_encoder(model)
        bad: tuple[list[str], list[str]] = ([], [])
        tokens = make_tokens(taken.words, source.tokenizer, encoder, left_out=bad[0])
        new_merges = make_merges(taken.merges, source.tokenizer, encoder, file=taken.file, left_out=bad[1])
        made = {stored_text(merge.token, source.tokenizer) for merge in new_merges}
        both = [token.content for token in tokens if token.content in made]
        bad[0].extend(f"{taken.file} has {text!r} as a word and as a syllable" for text in both)
        tokens = [token for token in tokens if token.content not in made]
        left_out = [*taken.left_out, *bad[0], *bad[1]]
        say_left_out(left_out, of=len(taken.left_out) + len(taken.words) + len(taken.merges))
        plan = extend_plan(
            source.tokenizer,
            tokens,
            keep_out=bool(source.record and FOREIGN in source.record.suppressed),
            required_ids=source.required,
            new_merges=new_merges,
            pad_multiple=pad_multiple,
        )
        after = checked_encoder(plan, source.tokenizer, source.spm_models, before=encoder)
        untrimmed = open_folder(base, to_edit=True) if base else None
        if untrimmed:
            check_base(source, untrimmed)
        contents = [token.content for token in tokens]
        merged = [stored_text(merge.token, source.tokenizer) for merge in new_merges]
        taught = None
        if init == "distill" and not dry_run:
            taught = find_taught_contexts(
                texts,
                [*merged, *contents],
                old_encoder=encoder,
                new_encoder=after,
                ids=range(len(plan.new_to_old), plan.n_tokens),
                state_file=part_of(out) / "distill.safetensors",
                per_word=contexts_per_word,
                seed=seed,
            )
        _print_plan(source, plan, taken, init)
        if dry_run:
            return
        with writing(source, out, hardlink=hardlink, resume=taught is not None) as edit:
            with untrimmed.readable(edit.folder) if untrimmed else contextlib.nullcontext() as readable:
                rows, facts = make_rows(
                    Origin(edit.source, readable),
                    contents,
                    init=init,
                    seed=seed,
                    dictionary=known,
                    merged={  # not by encoding their text: a token may be a part of a character
                        text: [source.tokenizer.tokens[old] for old in merge.replaces]
                        for text, merge in zip(merged, new_merges, strict=True)
                    },
                    taught=taught,
                )
                if measure and not taught:  # distilled rows have been measured
                    facts |= measure_rows(edit.source, rows, [*merged, *contents], after)
            if facts.get("without_equivalent"):
                with tqdm.external_write_mode():  # not into the line of a progress bar
                    print(f"{facts['without_equivalent']:,} words have no English equivalent: mean instead")
            old = encoder.encode_batch(contents, add_special_tokens=False)
            record = record_of(
                source,
                plan,
                task="extend_vocab",
                made_by=made_by,
                words=[content[1:].replace(" ", "▁") for content in contents],
                syllables=[
                    {"syllable": text, "merge": [merge.left, merge.right]}
                    for text, merge in zip(merged, new_merges, strict=True)
                ]
                or None,
                words_file={"name": as_published(taken.file.name), "sha256": sha256_file(taken.file)},
                replaces=[*(list(merge.replaces) for merge in new_merges), *(found.ids for found in old)],
                init={**facts, "base": as_published(base) if base else None},
            )
            edit.finish(plan, record, rows)


@dataclass(frozen=True)
class Taken:
    """What is taken of a list: words as text, merges of syllables. words_there, syllables_there: of how many.

    why: what decided how much, for people. left_out: why other rows of the list are neither.
    """

    file: Path
    words: list[str]
    merges: list[bpe.Merge]
    words_there: int
    syllables_there: int
    why: str
    left_out: list[str]


def take_list(
    file: Path | None, *, num_tokens: int | None, num_words: int | None, syllables: int | None
) -> Taken:
    """Read what is to be added of a list, of the bundled one where file is None.

    num_tokens: its first rows, words and syllables as they come. num_words, syllables: the first of each
    kind; where one alone is given, 1,024 words (or all of fewer), or no syllable. None of the three: all of
    the file, or the first 1,024 words of the bundled list. UserError for what the list does not have.
    """
    if num_tokens is not None and (num_words, syllables) != (None, None):
        other = "--num_words" if num_words is not None else "--syllables"
        raise UserError(
            f"--num_tokens {num_tokens} takes words and syllables as the list has them, {other} counts one "
            "kind; give one of the two flags"
        )
    if syllables is not None and syllables < 0:
        raise UserError(f"--syllables is {syllables}, expected 0 or more")
    if num_words is not None and num_words < (0 if syllables else 1):
        raise UserError(f"--num_words is {num_words}, expected 1 or more, such as {NUM_WORDS}")
    path = file or WORDS
    if not file and not path.is_file():
        raise UserError(f"{path} is missing; give a file of words with --words FILE (.jsonl or .txt)")
    found = read_list(path)
    there = (len(found.words), len(found.merges))
    some = min(NUM_WORDS, there[0])
    if num_tokens is not None:
        if not 1 <= num_tokens <= sum(there):
            raise UserError(
                f"--num_tokens is {num_tokens:,}, {path} has {there[0]:,} words and {there[1]:,} syllables; "
                f"give 1 to {sum(there):,}"
            )
        words = sum(isinstance(entry, str) for entry in found.entries[:num_tokens])
        wanted, why = (words, num_tokens - words), f"the first {num_tokens:,} rows"
    elif num_words is not None or syllables is not None:
        wanted, why = (some if num_words is None else num_words, syllables or 0), "the first of each"
    elif file:
        wanted, why = there, "the whole list"
    else:
        wanted, why = (some, 0), "unless --num_tokens, --num_words or --syllables says otherwise"
    listed = found.first(found.words, wanted[0], flag="--num_words")
    merges = found.first(found.merges, wanted[1], flag="--syllables")
    return Taken(path, listed, merges, *there, why, found.left_out)


def _print_plan(source: Folder, plan: Plan, taken: Taken, init: str) -> None:
    """Print what would be added, and what it costs."""
    tensors = (*source.tensors.embed, *source.tensors.head)
    before = source.checkpoint.size
    after = before + (plan.vocab_size - source.tensors.rows) * sum(tensor.row_bytes for tensor in tensors)
    shown = [stored_text(merge.token, source.tokenizer) for merge in plan.new_merges[:3]]
    kinds = (
        ("words", len(plan.new_tokens), [token.content for token in plan.new_tokens[:3]]),
        ("syllables", len(plan.new_merges), shown),
    )
    tied = "tied" if source.tensors.tied else "untied"
    print(f"{source.path}: {source.tokenizer.family}, {tied} embeddings")
    print(
        f"taken     {len(taken.words):,} of {taken.words_there:,} words and {len(taken.merges):,} of "
        f"{taken.syllables_there:,} syllables of {taken.file}: {taken.why}"
    )
    for kind, count, first in kinds:
        if count:
            print(
                f"{kind:10}{count:>13,} of {taken.file}: {', '.join(map(repr, first))} …; their rows: {init}"
            )
    print(f"tokens    {len(source.tokenizer.tokens):>13,} → {plan.n_tokens:>13,}")
    print(f"rows      {source.tensors.rows:>13,} → {plan.vocab_size:>13,}")
    print(f"bytes     {before:>13,} → {after:>13,}")
