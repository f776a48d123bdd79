"""compare_inits: every way to make the rows of new words, measured on text that none of them has seen.

Reads a model (trimmed or not), the checkpoint it came from, words, texts and, for `english`, a dictionary;
prints a table; writes JSON and a picture if asked. What is compared with is the model without new words: over
its tokens it says what its base says, as verify_edit shows. Texts are parted by line: `distill` learns from
the contexts of one part, everything is measured on the other.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vocabkit.checkpoint.folder import Folder, open_folder, without_gc
from vocabkit.checkpoint.numbers import as_float32
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.corpus import files as corpus_files
from vocabkit.corpus.lines import check_readable, held_out, lines_in_turns
from vocabkit.errors import UserError
from vocabkit.files import sha256_file, write_json
from vocabkit.look.inits_report import BASE, as_json, draw_inits, in_words, table
from vocabkit.look.plots import new_figure, write_figure
from vocabkit.outputs import new_file
from vocabkit.rows.contexts import (
    TEST_ONE_IN,
    Context,
    TaughtContexts,
    counts_of,
    find_contexts,
    find_taught_contexts,
)
from vocabkit.rows.make import Origin, check_base, make_rows
from vocabkit.rows.names import INITS
from vocabkit.tokenizer.encoder import extended, load_encoder
from vocabkit.vocab.new_tokens import make_tokens
from vocabkit.vocab.word_list import WORDS, read_equivalents, read_words, say_left_out

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from vocabkit.rows.elsewhere import OtherText

OPTIONS = (
    "texts",
    "words",
    "num_words",
    "inits",
    "contexts_per_word",
    "dictionary",
    "seed",
    "dtype",
    "plot",
    "out",
)
NUM_WORDS = 200
CONTEXTS_PER_WORD = 8  # to measure with; more of the same words make standard errors little smaller
LINES = 100  # of text for the bits per byte
MAX_IDS = 256  # tokens of such a line


def compare_inits(
    base: Path,
    model: Path,
    *,
    texts: Sequence[str | Path] | None,
    words: Path | None = None,
    num_words: int | None = None,
    inits: Sequence[str] = (),
    contexts_per_word: int | None = None,
    dictionary: Path | None = None,
    seed: int = 0,
    dtype: str | None = None,
    plot: Path | None = None,
    out: Path | None = None,
) -> None:
    """Measure inits (all that can be made, if none are named) for the first words of a file that texts hold.

    Raises UserError for what the user can mend; nothing is written then.
    """
    if not texts:
        raise UserError("compare_inits measures on text: give Vietnamese files or folders with --texts")
    per_word = CONTEXTS_PER_WORD if contexts_per_word is None else contexts_per_word
    if per_word < 1:
        raise UserError(f"--contexts_per_word is {per_word}, expected 1 or more, such as 8")
    if num_words is not None and num_words < 1:
        raise UserError(f"--num_words is {num_words}, expected 1 or more, such as {NUM_WORDS}")
    _check_new_file(out)
    figure = new_figure(plot) if plot else None
    file = words or WORDS
    listed = read_words(file, count=num_words)[: num_words or NUM_WORDS]
    corpora = check_readable(texts)
    left_out, known = {}, None
    if not inits or "english" in inits:
        try:
            known = read_equivalents(dictionary, listed)
        except UserError as error:
            if inits:
                raise
            left_out["english"] = str(error)
    with without_gc():
        sources = (open_folder(base), open_folder(model))
    check_base(sources[1], sources[0])
    bad: list[str] = []
    made = make_tokens(listed, sources[1].tokenizer, load_encoder(model), left_out=bad)
    say_left_out(bad, of=len(listed))
    listed = [token.content[1:] for token in made]
    contexts, kept = _places(sources[1], corpora, listed, per_word=per_word)
    if not kept:
        names = ", ".join(str(path) for path in texts)
        raise UserError(
            f"{names}: none of the {len(listed):,} words of {file} stands in the part that is measured on "
            "(one line in four); give more Vietnamese texts with --texts, or other words with --words"
        )
    wanted = [init for init in inits or INITS if init not in left_out]
    stored, others = _rows(
        sources, kept, wanted, texts=texts, known=known, seed=seed, all_of_them=bool(inits)
    )
    left_out |= others

    from vocabkit.models.load import describe, silence
    from vocabkit.models.word_model import load_word_model, rows_of_tensors
    from vocabkit.rows.measures import Line, gap_of, measure_inits

    silence()
    tensors = sources[1].tensors
    sets = {init: rows_of_tensors(tensors, values) for init, values in stored.items()}
    first_new = max(sources[1].tokenizer.tokens) + 1
    reader = load_word_model(model, next(iter(sets.values())), first_new=first_new, dtype=dtype)
    lines = [Line(*line) for line in _lines(sources[1], kept, corpora)]
    gaps = [gap_of(context) for context in contexts]
    other = _other_texts(sources[1], kept, corpora)
    results = measure_inits(reader, sets, base=BASE, gaps=gaps, lines=lines, other=other, seed=seed)

    print(f"{model}: {describe(reader.model)}, {'tied' if tensors.tied else 'untied'} embeddings")
    print(f"{len(kept):,} of {len(listed):,} words of {file} stand in the texts, {len(gaps):,} contexts")
    print()
    print(table(results))
    print()
    print("where no new word belongs:")
    print(table(results, other=True))
    print()
    print(in_words(results))
    for init, reason in left_out.items():
        print(f"left out: {init}: {reason}")
    if out:
        settings = {
            "date": f"{date.today()}",
            "base": {"folder": str(base), "sha256": _fingerprints(base)},
            "model": {"folder": str(model), "sha256": _fingerprints(model)},
            "words": {"file": str(file), "sha256": sha256_file(file), "measured": kept},
            "texts": {
                source.name: sha256_file(Path(source.name)) if source.size is not None else None
                for source in corpora
            },
            "contexts_per_word": per_word,
            "seed": seed,
            "dtype": str(reader.model.dtype).removeprefix("torch."),
        }
        _write(out, as_json(results, left_out=left_out, settings=settings))
    if plot and figure:
        draw_inits(figure, results, title=f"{model.name}: {len(kept)} new words, {len(gaps)} contexts")
        write_figure(figure, plot)


def _check_new_file(path: Path | None) -> None:
    if path is None:
        return
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} already exists; choose another file with -o, or remove it: rm {path}")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder; make it first: mkdir -p {path.parent}")


def _tokenizers(model: Folder, words: Sequence[str]) -> "tuple[list[str], Tokenizer, Tokenizer]":
    """Return the texts of the words' tokens, the model's tokenizer, and the one that has these too."""
    encoder = load_encoder(model.path)
    contents = [token.content for token in make_tokens(words, model.tokenizer, encoder)]
    return contents, encoder, extended(model.tokenizer, contents)


def _places(
    model: Folder, sources: Sequence[corpus_files.Source], listed: Sequence[str], *, per_word: int
) -> tuple[list[Context], list[str]]:
    """Return the contexts to measure at and the words that have one; a context's word is its place among
    these.
    """
    contents, *encoders = _tokenizers(model, listed)
    found = find_contexts(sources, contents, *encoders, per_word=per_word, part="test")
    present = [word for word, count in enumerate(counts_of(found, len(listed))) if count]
    number = {word: at for at, word in enumerate(present)}
    return [replace(c, word=number[c.word]) for c in found], [listed[word] for word in present]


def _lines(
    model: Folder, words: Sequence[str], corpora: Sequence[corpus_files.Source]
) -> list[tuple[int, list[int], list[int]]]:
    """Return LINES lines of the part that is measured on, spread evenly: bytes, ids as old tokens, with new
    ones.
    """
    _, old_encoder, new_encoder = _tokenizers(model, words)
    rows = list(model.tokenizer.tokens)  # the extended tokenizer's ids → rows, which may have holes
    rows += [rows[-1] + 1 + at for at in range(len(words))]
    lines = dict.fromkeys(lines_in_turns(corpora, notes=lambda note: None))
    chosen = [line for line in lines if held_out(line, one_in=TEST_ONE_IN)]
    chosen = chosen[:: max(1, len(chosen) // LINES)][:LINES]
    found = []
    for line in chosen:
        old = old_encoder.encode(line, add_special_tokens=False).ids
        new = [rows[i] for i in new_encoder.encode(line, add_special_tokens=False).ids]
        if max(len(old), len(new)) < MAX_IDS:
            found.append((len(line.encode("utf-8")), old, new))
    return found


def _other_texts(
    model: Folder, words: Sequence[str], corpora: Sequence[corpus_files.Source]
) -> "dict[str, list[OtherText]]":
    """Return the texts that hold none of the words, of the part that is measured on."""
    from vocabkit.rows.elsewhere import find_other_texts

    _, *encoders = _tokenizers(model, words)
    first_new = len(model.tokenizer.tokens)
    return find_other_texts(model.path, *encoders, first_new=first_new, corpora=corpora).test


def _rows(
    sources: tuple[Folder, Folder],
    words: Sequence[str],
    inits: Sequence[str],
    *,
    texts: Sequence[str | Path],
    known: dict[str, list[str]] | None,
    seed: int,
    all_of_them: bool,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Return init → tensor → the new rows as a checkpoint stores them, (W, D) float32, and init → why it
    cannot be made; UserError for that with all_of_them. known: the dictionary.
    """
    base, model = sources
    origin = Origin(model, base)
    made: dict[str, dict[str, np.ndarray]] = {}
    left_out = {}
    for init in inits:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                taught = _taught(model, words, texts, Path(scratch), seed=seed) if init == "distill" else None
                stored, _ = make_rows(
                    origin, [f" {w}" for w in words], init=init, seed=seed, dictionary=known, taught=taught
                )
        except UserError as error:
            if all_of_them:
                raise
            left_out[init] = str(error)
            continue
        made[init] = {name: as_float32(raw, model.checkpoint.tensors[name]) for name, raw in stored.items()}
    return made, left_out


def _taught(
    model: Folder, words: Sequence[str], texts: Sequence[str | Path], scratch: Path, *, seed: int
) -> TaughtContexts:
    """Return what rows are distilled from: the part of the texts that nothing is measured on."""
    contents, old_encoder, new_encoder = _tokenizers(model, words)
    n_tokens = len(model.tokenizer.tokens)
    return find_taught_contexts(
        [str(path) for path in texts],
        contents,
        old_encoder=old_encoder,
        new_encoder=new_encoder,
        ids=range(n_tokens, n_tokens + len(contents)),
        state_file=scratch / "distill.safetensors",
        seed=seed,
    )


def _fingerprints(folder: Path) -> dict[str, str]:
    files = [folder / "config.json", folder / "tokenizer.json", *read_checkpoint(folder).files]
    return {path.name: sha256_file(path) for path in files}


def _write(path: Path, value: dict[str, Any]) -> None:
    with new_file(path) as part:
        write_json(part, value)
    print(f"{path}: written")
