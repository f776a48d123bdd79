"""Words, texts with them, tiny checkpoints and what these become by distilling."""

from pathlib import Path
from typing import Any

import build
import numpy as np

from vocabkit.checkpoint.numbers import row_stats, rows_as_float32
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.corpus.files import find_sources
from vocabkit.edit.extend import extend_vocab
from vocabkit.files import read_json
from vocabkit.models.word_model import Rows
from vocabkit.rows.contexts import Context, find_contexts
from vocabkit.rows.distill import distill
from vocabkit.rows.elsewhere import OtherTexts, find_other_texts
from vocabkit.rows.leak import Guarded
from vocabkit.rows.lessons import Settings
from vocabkit.tokenizer.encoder import extended as extended_encoder
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json

WORDS = ["hôm▁nay", "thanh▁điệu", "Tiếng▁Việt", "hợp▁sức▁cần"]  # the last one stands in no text
CONTENTS = [" " + word.replace("▁", " ") for word in WORDS]
BEGINNINGS = ("Mọi người nói rằng", "Thời gian trôi nhanh và", "We'll see what", "Chúng ta đi chơi,")
ENDS = ("rất đẹp, nhé (maybe rain)!", "giàu và nhỏ: ma, má, mà 13.", "cũng cần nhiều người hợp sức.")
LINES = [
    f"{first} số {number}{content} {last}"
    for number in range(3)
    for content in CONTENTS[:3]
    for first in BEGINNINGS
    for last in ENDS
]


def write_texts(folder: Path) -> tuple[Path, Path]:
    (folder / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(LINES), encoding="utf-8")
    return folder / "words.txt", folder / "texts.txt"


def extended(source: Path, out: Path, *, seed: int = 0, init: str | None = "distill") -> Path:
    words, texts = write_texts(out.parent)
    given = [str(texts)] if init == "distill" else []
    extend_vocab(source, out, words=words, init=init, contexts=given, contexts_per_word=6, seed=seed)
    return out


def make(folder: Path, family: str, **how: Any) -> Path:
    more = {"n_positions": 320} if family == "gpt2" else {}
    return build.make_checkpoint(folder / family, family, **more, **how)


def new_tokens(out: Path) -> list[int]:
    return [new for new, old in enumerate(read_json(out / "vocab_edit.json")["new_to_old"]) if old is None]


def matrices(out: Path) -> dict[str, np.ndarray]:
    """The new rows of an edited folder."""
    tensors = read_checkpoint(out).tensors
    rows = read_json(out / "config.json")["vocab_size"]
    vocabulary = [t for t in tensors.values() if t.shape[0] == rows]
    return {t.name: rows_as_float32(t, new_tokens(out)) for t in vocabulary}


def contexts_of(source: Path, texts: Path, **more: Any) -> list[Context]:
    tokenizer = read_tokenizer_json(source)
    encoders = load_encoder(source), extended_encoder(tokenizer, CONTENTS)
    return find_contexts(find_sources([str(texts)]), CONTENTS, *encoders, per_word=6, **more)


def other_texts_of(source: Path) -> OtherTexts:
    tokenizer = read_tokenizer_json(source)
    encoders = load_encoder(source), extended_encoder(tokenizer, CONTENTS)
    return find_other_texts(source, *encoders, first_new=len(tokenizer.tokens))


def learn(
    source: Path, folder: Path, *, dtype: str | None = None, **settings: Any
) -> tuple[Rows, dict[str, Any], Guarded]:
    """Distil the rows of ids 20 to 23, in place of the words' own, without extending a folder."""
    tensors = read_checkpoint(source).tensors
    old = rows_as_float32(tensors["model.embed_tokens.weight"], range(300))
    tokens = len(read_tokenizer_json(source).tokens)
    return distill(
        source,
        contexts_of(source, write_texts(folder)[1]),
        other_texts_of(source),
        Rows(old[20:24]),
        stats=[row_stats([old])],
        first_new=tokens,
        state_file=folder / "state",
        settings=Settings(**settings),
        dtype=dtype,
    )
