"""Extend a checkpoint's vocabulary: Vietnamese words and syllables become tokens, with rows made from old
rows.

Reads a Hugging Face folder (trimmed or not), a file of words and, where given, the untrimmed checkpoint; has
a new folder written (vocabkit/edit/write.py). The source is never changed: every old row keeps its bytes,
and text without a new word or a new merge is cut as before. New ids follow the last old one: first the
syllables, tokens that BPE makes itself, then the words, added tokens (tokenizer/tokenizer_json.py says why
in this order).
"""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vocabkit.checkpoint.folder import Source, open_source, without_gc
from vocabkit.checkpoint.record import EDIT_FILE, EDIT_FORMAT
from vocabkit.checkpoint.torch_bin import with_bytes
from vocabkit.edit.write import Decision, provenance, write_edit
from vocabkit.errors import UserError
from vocabkit.files import read_json_object, sha256_file
from vocabkit.outputs import check_new
from vocabkit.rows.contexts import Lessons, choose_init, find_lessons
from vocabkit.rows.make import Origin, check_base, make_rows
from vocabkit.tokenizer.encoder import extended, load_encoder
from vocabkit.tokenizer.spm import piece_tokens, select_pieces
from vocabkit.tokenizer.tokenizer_json import UNIGRAM, TokenizerJson, stored_text
from vocabkit.vocab.new_tokens import check_extended, check_pieces, check_syllables, make_merges, make_tokens
from vocabkit.vocab.plan import NewMerge, NewToken, Plan, extend_plan
from vocabkit.vocab.word_list import DICTIONARY, WORDS, read_dictionary, read_syllables, read_words

NUM_WORDS = 1024


def extend_vocab(
    model: Path,
    out: Path,
    *,
    base: Path | None = None,
    words: Path | None = None,
    num_words: int | None = None,
    syllables: int = 0,
    init: str | None = None,
    contexts: Sequence[str] = (),
    contexts_per_word: int | None = None,
    dictionary: Path | None = None,
    seed: int = 0,
    pad_multiple: int = 64,
    hardlink: bool = False,
    dry_run: bool = False,
    made_by: str = "vocabkit",
) -> None:
    """Extend MODEL with the first num_words of a file (1,024, or all of a shorter file) and its first
    syllables into OUT; with dry_run print what would be added and write nothing.

    base: the checkpoint that MODEL was trimmed out of, whose rows an init may use where MODEL has lost them.
    init, contexts: how rows are made and the texts that `distill` reads, see distill_rows.choose_init().
    Raises UserError for whatever the user can mend; OUT then does not exist, and the source is as it was.
    """
    if not dry_run:
        check_new(out)
    init, texts = choose_init(init, contexts)
    listed, file = _words(words, num_words, syllables)
    merges = read_syllables(file, count=syllables)
    known = None
    if init == "english":
        known = read_dictionary(_dictionary(dictionary))
        if listed and not any(word.lower() in known for word in listed):
            raise UserError(f"{_dictionary(dictionary)} knows none of the words of {file}; give another one")
    with without_gc():
        source = open_source(model)
        encoder = load_encoder(model)
        tokens = make_tokens(listed, source.tokenizer, encoder)
        new_merges = make_merges(merges, source.tokenizer, encoder, file=file)
        _refuse_both(tokens, new_merges, source.tokenizer, file=file)
        plan = extend_plan(
            source.tokenizer,
            tokens,
            suppressed=_suppressed(source),
            new_merges=new_merges,
            pad_multiple=pad_multiple,
        )
        after = _check_tokenizer(source, plan, encoder)
        untrimmed = open_source(base) if base is not None else None
        if untrimmed is not None:
            check_base(source, untrimmed)
        lessons = None
        if init == "distill" and not dry_run:
            lessons = find_lessons(
                texts,
                [
                    *(stored_text(merge.token, source.tokenizer) for merge in new_merges),
                    *(token.content for token in tokens),
                ],
                old_encoder=encoder,
                new_encoder=after,
                ids=range(len(plan.new_to_old), plan.n_tokens),
                state_file=out.with_name(f"{out.name}.distill.safetensors"),
                per_word=contexts_per_word,
                seed=seed,
            )
        _print_plan(source, plan, file, init)
        if dry_run:
            return
        old = encoder.encode_batch([token.content for token in tokens], add_special_tokens=False)
        own = {
            "words": [word.replace(" ", "▁") for word in listed],
            **({"syllables": _syllables(source, plan)} if plan.merges else {}),
            "words_file": {"name": file.name, "sha256": sha256_file(file)},
            "replaces": [*(list(m.replaces) for m in plan.new_merges), *(found.ids for found in old)],
        }
        decide = functools.partial(
            _decide,
            base=untrimmed,
            plan=plan,
            own=own,
            init=init,
            seed=seed,
            known=known,
            lessons=lessons,
            scratch=out.parent,
            made_by=made_by,
        )
        write_edit(source, out, decide, hardlink=hardlink)
        if lessons:
            lessons.state_file.unlink(missing_ok=True)


def _words(words: Path | None, num_words: int | None, syllables: int) -> tuple[list[str], Path]:
    if syllables < 0:
        raise UserError(f"--syllables is {syllables}, expected 0 or more")
    if num_words is not None and num_words < (0 if syllables else 1):
        raise UserError(f"--num_words is {num_words}, expected 1 or more, such as {NUM_WORDS}")
    file = words or WORDS
    if words is None and not file.is_file():
        raise UserError(f"{file} is missing; give a file of words with --words FILE (.jsonl or .txt)")
    listed = read_words(file, count=num_words)
    return (listed if num_words is not None else listed[:NUM_WORDS]), file


def _refuse_both(
    tokens: Sequence[NewToken], merges: Sequence[NewMerge], tokenizer: TokenizerJson, *, file: Path
) -> None:
    """Raise UserError for a word that is a syllable of the list as well: one text would have two tokens."""
    both = {stored_text(merge.token, tokenizer) for merge in merges} & {token.content for token in tokens}
    if both:
        raise UserError(f"{file} has {min(both)!r} as a word and as a syllable; remove one of the two")


def _syllables(source: Source, plan: Plan) -> list[dict[str, Any]]:
    """Return the new syllables as the file of words has them."""
    return [
        {"syllable": stored_text(merge.token, source.tokenizer), "merge": [merge.left, merge.right]}
        for merge in plan.new_merges
    ]


def _dictionary(given: Path | None) -> Path:
    if given is None and not DICTIONARY.is_file():
        raise UserError(
            "--init english needs equivalents: give --dictionary FILE, English TAB Vietnamese or .jsonl"
        )
    return given or DICTIONARY


def _suppressed(source: Source) -> dict[str, list[int]]:
    """Return what an earlier edit keeps generate() from choosing, reason → ids."""
    edit = read_json_object(source.folder / EDIT_FILE, missing_ok=True)
    return edit["suppressed"] if edit.get("format") == EDIT_FORMAT[0] else {}


def _check_tokenizer(source: Source, plan: Plan, encoder: Any) -> Any:
    """Return the extended tokenizer; UserError if these cannot be its tokens without changing a text."""
    positions: list[int] = []
    for name, model in source.spm_models.items():
        path = source.folder / name
        positions = piece_tokens(model, path=path, vocab=source.tokenizer.piece_ids)
        if source.tokenizer.family != UNIGRAM and positions != list(source.tokenizer.tokens):
            raise UserError(
                f"{path} has {len(positions):,} pieces, tokenizer.json {len(source.tokenizer.tokens):,} "
                "tokens: a new token would have two ids, so this tokenizer cannot be extended; remove "
                f"{name} if nothing uses it"
            )
        check_pieces(plan.new_merges, model, path=path)
    merged = [merge.token for merge in plan.new_merges]

    def with_tokens(contents: Sequence[str]) -> tuple[Any, bytes | None]:
        """Return the tokenizer with the new merges and these tokens, and tokenizer.model."""
        pieces = [content.replace(" ", "▁") for content in contents]
        files = [
            select_pieces(model, list(range(len(positions))), pieces, merged=merged)
            for model in source.spm_models.values()
        ]
        return extended(source.tokenizer, contents, plan.merges), (files[-1] if files else None)

    if plan.new_merges:
        after, spm_model = with_tokens([])
        check_syllables(plan.new_merges, source.tokenizer, before=encoder, after=after, spm_model=spm_model)
    after, spm_model = with_tokens([token.content for token in plan.new_tokens])
    check_extended(
        plan.new_tokens, path=source.tokenizer.path, before=encoder, after=after, spm_model=spm_model
    )
    return after


def _decide(
    source: Source,
    *,
    base: Source | None,
    plan: Plan,
    own: dict[str, Any],
    init: str,
    seed: int,
    known: dict[str, list[str]] | None,
    lessons: Lessons | None,
    scratch: Path,
    made_by: str,
) -> Decision:
    """Return what to write, the new rows with it."""
    contents = [token.content for token in plan.new_tokens]
    tokens = source.tokenizer.tokens
    merged = {  # not by encoding their text: a token may be a part of a character
        stored_text(merge.token, source.tokenizer): [tokens[old] for old in merge.replaces]
        for merge in plan.new_merges
    }
    with with_bytes(base.checkpoint, scratch) if base else contextlib.nullcontext() as opened:
        origin = Origin(source, base.with_checkpoint(opened) if base and opened else None)
        rows, facts = make_rows(
            origin, contents, init=init, seed=seed, dictionary=known, merged=merged, lessons=lessons
        )
    if facts.get("without_equivalent"):
        with tqdm.external_write_mode():  # not into the line of a progress bar
            print(f"{facts['without_equivalent']:,} words have no English equivalent: mean instead")
    facts["base"] = str(base.folder) if base else None
    edit = provenance(source, plan, task="extend_vocab", made_by=made_by, own={**own, "init": facts})
    return Decision(plan, edit, rows)


def _print_plan(source: Source, plan: Plan, file: Path, init: str) -> None:
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
    print(f"{source.folder}: {source.tokenizer.family}, {tied} embeddings")
    for kind, count, first in kinds:
        if count:
            print(f"{kind:10}{count:>13,} of {file}: {', '.join(map(repr, first))} …; their rows: {init}")
    print(f"tokens    {len(source.tokenizer.tokens):>13,} → {plan.n_tokens:>13,}")
    print(f"rows      {source.tensors.rows:>13,} → {plan.vocab_size:>13,}")
    print(f"bytes     {before:>13,} → {after:>13,}")
