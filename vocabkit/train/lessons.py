"""The objectives `distill` and `both`: the frozen model, reading the old tokens, teaches the new rows.

Reads the texts that are trained on and the folder's tokenizer; writes nothing. The terms of the loss are
those of rows/distill.py; teacher and student are one model here, with and without its new rows, so that no
second copy of the weights is in memory.
"""

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from vocabkit.checkpoint.record import NewRows
from vocabkit.corpus.files import find_sources
from vocabkit.errors import UserError
from vocabkit.models.word_model import WordModel
from vocabkit.rows.contexts import CONTEXTS_PER_WORD, Context, find_contexts
from vocabkit.rows.elsewhere import find_other_texts
from vocabkit.rows.leak import Places, read_places
from vocabkit.rows.lessons import Settings, Teacher
from vocabkit.tokenizer.encoder import extended, load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json, stored_text


class StageLessons:
    """Batches of contexts of the new words, in an order that the seed decides; loss(n): that of the n-th.

    start: the id that texts begin with. A batch has the size that rows/distill.py was tuned for, whatever
    that of the texts is. sharded: FSDP gathers weights whenever the model reads, so all processes must read
    as often: none may remember a lesson.
    """

    def __init__(
        self, model: Any, folder: Path, rows: NewRows, texts: Sequence[str], *, start: int, seed: int,
        sharded: bool = False,
    ) -> None:  # fmt: skip
        reader = WordModel(model, start=start)
        found, other = _read(reader, folder, rows, texts, seed=seed)
        self._teacher = Teacher(reader, found, other, settings=Settings())
        if sharded:
            self._teacher.cache_left = 0
        self._seed = seed

    def __len__(self) -> int:
        return len(self._teacher.lessons)

    def loss(self, number: int) -> torch.Tensor:
        """Return the weighted terms of a batch; the same number is the same batch."""
        epoch, at = divmod(number, len(self))
        return self._teacher.loss(self._teacher.order(self._seed, epoch)[at])


def teach(model: Any, lessons: StageLessons, *, texts_too: bool) -> None:
    """Give a model a forward() that takes lesson=(number, share): the loss is that lesson's times its share,
    and, with texts_too, the loss that forward() had before.

    In forward(), because DDP and FSDP see to the gradients of what goes through it and of nothing else.
    """
    read = model.forward

    def forward(self: Any, *, lesson: tuple[int, float] | None = None, **inputs: Any) -> Any:
        if lesson is None:
            return read(**inputs)
        number, share = lesson
        loss = lessons.loss(number) * share
        return CausalLMOutputWithPast(loss=loss + read(**inputs).loss if texts_too else loss)

    model.forward = types.MethodType(forward, model)


def old_and_new_encoder(folder: Path, rows: NewRows) -> tuple[list[str], Any, Any]:
    """Return the texts of the new tokens, the tokenizer as it was before them, and as it is."""
    tokenizer = read_tokenizer_json(folder)
    contents = [
        token if token in tokenizer.added else stored_text(token, tokenizer)
        for token_id, token in tokenizer.tokens.items()
        if rows.first <= token_id < rows.stop
    ]
    return contents, extended(tokenizer.before(rows.first)), load_encoder(folder)


def _read(
    model: WordModel, folder: Path, rows: NewRows, texts: Sequence[str], *, seed: int
) -> tuple[list[Context], list[Places]]:
    """Return contexts of the new tokens, and the places of other texts, as the model reads them."""
    contents, old_encoder, new_encoder = old_and_new_encoder(folder, rows)
    sources = find_sources(texts)
    found = find_contexts(
        sources, contents, old_encoder, new_encoder, per_word=CONTEXTS_PER_WORD, seed=seed,
        ids=range(rows.first, rows.stop),
    )  # fmt: skip
    if not found:
        raise UserError(
            f"{', '.join(texts)}: no new token stands in the part that is learned from (three lines in "
            "four); give other --data_path, or --objective lm"
        )
    print(f"contexts  {len(found):>13,} of {len({context.word for context in found}):,} new tokens")
    other = find_other_texts(folder, old_encoder, new_encoder, first_new=rows.first, corpora=sources)
    return found, [read_places(model, some) for some in other.train.values()]
