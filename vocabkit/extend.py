"""Extend a checkpoint's vocabulary: Vietnamese words become tokens, and their rows are made from old rows.

Reads a Hugging Face folder (trimmed or not), a file of words and, where given, the untrimmed checkpoint; has
a new folder written (vocabkit/edit.py). The source is never changed: every old row keeps its bytes, and text
without a new word is cut as before.
"""

import contextlib
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vocabkit import distill_rows, new_rows, verify
from vocabkit.edit import DATA, Decision, Source, open_source, provenance, without_gc, write_edit
from vocabkit.errors import UserError
from vocabkit.files import check_new, read_json_object, sha256_file
from vocabkit.new_words import check_extended, make_tokens, read_words
from vocabkit.plan import Plan, extend_plan
from vocabkit.spm import piece_tokens, select_pieces
from vocabkit.tokenizer_json import UNIGRAM
from vocabkit.torch_bin import with_bytes

WORDS = DATA / "vi_words_chosen.jsonl"
DICTIONARY = DATA / "vi_words_similarity.jsonl"
NUM_WORDS = 1024


def extend_vocab(
    model: Path,
    out: Path,
    *,
    base: Path | None = None,
    words: Path | None = None,
    num_words: int | None = None,
    init: str | None = None,
    contexts: Sequence[str] = (),
    contexts_per_word: int | None = None,
    dictionary: Path | None = None,
    seed: int = 0,
    pad_multiple: int = 64,
    hardlink: bool = False,
    made_by: str = "vocabkit",
) -> None:
    """Extend MODEL with the first num_words of a file (1,024, or all of a shorter file) into OUT.

    base: the checkpoint that MODEL was trimmed out of, whose rows an init may use where MODEL has lost them.
    init, contexts: how rows are made and the texts that `distill` reads, see distill_rows.choose_init().
    Raises UserError for whatever the user can mend; OUT then does not exist, and the source is as it was.
    """
    check_new(out)
    required = init == "distill" or bool(contexts)
    init, texts = distill_rows.choose_init(init, contexts)
    listed, file = _words(words, num_words)
    known = None
    if init == "english":
        known = new_rows.read_dictionary(_dictionary(dictionary))
        if not any(word.lower() in known for word in listed):
            raise UserError(f"{_dictionary(dictionary)} knows none of the words of {file}; give another one")
    with without_gc():
        source = open_source(model)
        encoder = verify.load_encoder(model)
        tokens = make_tokens(listed, source.tokenizer, encoder)
        plan = extend_plan(
            source.tokenizer, tokens, suppressed=_suppressed(source), pad_multiple=pad_multiple
        )
        extended = _check_tokenizer(source, plan, encoder)
        untrimmed = open_source(base) if base is not None else None
        if untrimmed is not None:
            new_rows.check_base(source, untrimmed)
        lessons = None
        if init == "distill":
            lessons = distill_rows.find_lessons(
                texts,
                [token.content for token in tokens],
                old_encoder=encoder,
                new_encoder=extended,
                ids=range(len(plan.new_to_old), plan.n_tokens),
                required=required,
                state_file=out.with_name(f"{out.name}.distill.safetensors"),
                per_word=contexts_per_word,
                seed=seed,
            )
            init = init if lessons else distill_rows.WITHOUT_TEXTS
        _print_plan(source, plan, file, init)
        old = encoder.encode_batch([token.content for token in tokens], add_special_tokens=False)
        own = {
            "words": [word.replace(" ", "▁") for word in listed],
            "words_file": {"name": file.name, "sha256": sha256_file(file)},
            "replaces": [found.ids for found in old],
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


def _words(words: Path | None, num_words: int | None) -> tuple[list[str], Path]:
    if num_words is not None and num_words < 1:
        raise UserError(f"--num_words is {num_words}, expected 1 or more, such as {NUM_WORDS}")
    file = words or WORDS
    if words is None and not file.is_file():
        raise UserError(f"{file} is missing; give a file of words with --words FILE (.jsonl or .txt)")
    listed = read_words(file, count=num_words)
    return (listed if num_words else listed[:NUM_WORDS]), file


def _dictionary(given: Path | None) -> Path:
    if given is None and not DICTIONARY.is_file():
        raise UserError(
            "--init english needs equivalents: give --dictionary FILE, English TAB Vietnamese or .jsonl"
        )
    return given or DICTIONARY


def _suppressed(source: Source) -> dict[str, list[int]]:
    """Return what an earlier edit keeps generate() from choosing, reason → ids."""
    path = source.folder / verify.EDIT_FILE
    edit = read_json_object(path) if path.is_file() else {}
    return edit["suppressed"] if edit.get("format") == verify.EDIT_FORMAT[0] else {}


def _check_tokenizer(source: Source, plan: Plan, encoder: Any) -> Any:
    """Return the extended tokenizer; UserError if words cannot be its tokens without changing a text."""
    import tokenizers

    data = source.tokenizer.trimmed(plan.new_to_old, [token.entry() for token in plan.new_tokens])
    after = tokenizers.Tokenizer.from_str(json.dumps(data))
    after.no_truncation()
    after.no_padding()
    spm_model = None
    for name, model in source.spm_models.items():
        path = source.folder / name
        positions = piece_tokens(model, path=path, vocab=source.tokenizer.piece_ids)
        if source.tokenizer.family != UNIGRAM and positions != list(source.tokenizer.tokens):
            raise UserError(
                f"{path} has {len(positions):,} pieces, tokenizer.json {len(source.tokenizer.tokens):,} "
                "tokens: a new token would have two ids, so this tokenizer cannot be extended; remove "
                f"{name} if nothing uses it"
            )
        pieces = [token.content.replace(" ", "▁") for token in plan.new_tokens]
        spm_model = select_pieces(model, list(range(len(positions))), pieces)
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
    lessons: distill_rows.Lessons | None,
    scratch: Path,
    made_by: str,
) -> Decision:
    """Return what to write, the new rows with it."""
    contents = [token.content for token in plan.new_tokens]
    with with_bytes(base.checkpoint, scratch) if base else contextlib.nullcontext() as opened:
        origin = new_rows.Origin(source, base.with_checkpoint(opened) if base and opened else None)
        rows, facts = new_rows.make_rows(
            origin, contents, init=init, seed=seed, dictionary=known, lessons=lessons
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
    first = ", ".join(repr(token.content) for token in plan.new_tokens[:3])
    tied = "tied" if source.tensors.tied else "untied"
    print(f"{source.folder}: {source.tokenizer.family}, {tied} embeddings")
    print(f"words     {len(plan.new_tokens):>13,} of {file}: {first} …; their rows: {init}")
    print(f"tokens    {len(source.tokenizer.tokens):>13,} → {plan.n_tokens:>13,}")
    print(f"rows      {source.tensors.rows:>13,} → {plan.vocab_size:>13,}")
    print(f"bytes     {before:>13,} → {after:>13,}")
