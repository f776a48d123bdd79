"""Rungs 4 and 5, what an edit costs: logits and probabilities of the edited model beside its base.

Reads two folders and texts, runs both models one after the other (so that only one is in memory), writes
nothing. Losses are given in bits per byte of text, the one unit that two vocabularies share: bits_per_byte =
Σ −log2 p(token | tokens before) / bytes of the text.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vocabkit.errors import UserError
from vocabkit.models.load import load_model
from vocabkit.models.start import text_start
from vocabkit.text.unicode import nfc
from vocabkit.verify.check import Check
from vocabkit.verify.edited import Edited
from vocabkit.verify.other_text import check_other_text

MAX_LENGTH = 256  # tokens of one piece of text: bounds the (T, V) logits held at a time
MAX_TOKENS = 8_000  # tokens of text that the models read, spread evenly over what is given

LOGIT_TOKENS = 512  # tokens whose logits over all kept columns are compared one by one
# Largest |Δ logit| that rounding explains, relative to the largest logit: the two matrices differ in their
# number of rows, and libraries cut sums of products into blocks by the shape.
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
BITS_TOLERANCE = 1e-4  # bits per byte; between the edited model and the base renormalized, in float32


@dataclass(frozen=True)
class TextPiece:
    """A piece of text with its ids in both tokenizers; covered: every old id is kept and no new token used,
    so both encode it alike.
    """

    size: int  # bytes of UTF-8
    chars: int
    old_ids: list[int]
    new_ids: list[int]
    covered: bool


@dataclass
class Reading:
    """What one model says of the pieces: nats of each, over all answers that count and over the kept columns
    alone.
    """

    nats: list[float] = field(default_factory=list)
    kept_nats: list[float] = field(default_factory=list)
    others: list[torch.Tensor] = field(default_factory=list)  # (T,) probability given to other columns
    logits: list[torch.Tensor] = field(default_factory=list)  # (T, kept) float32, of the first covered pieces


def cut_pieces(edited: Edited, texts: Iterable[str], *, start: int) -> list[TextPiece]:
    """Return texts in NFC, halved until both tokenizers need few enough ids, each with a start token.

    start: its id in the base.
    """

    def cut(text: str) -> Iterator[TextPiece]:
        old = edited.base_encoder.encode(text, add_special_tokens=False).ids
        new = edited.encoder.encode(text, add_special_tokens=False).ids
        if max(len(old), len(new)) >= MAX_LENGTH and len(text) > 1:
            half = text.find(" ", len(text) // 2)
            half = half if half > 0 else len(text) // 2
            yield from cut(text[:half])
            yield from cut(text[half:])
        elif old and new:
            covered = edited.old_to_new.keys() >= set(old) and not edited.added.keys() & set(new)
            yield TextPiece(
                len(text.encode()), len(text), [start, *old], [edited.old_to_new[start], *new], covered
            )

    return [piece for text in texts for piece in cut(nfc(text))]


def sample(texts: Iterable[str], max_tokens: int) -> list[str]:
    """Return texts spread evenly over all of them, of about max_tokens tokens together (taken as 4 bytes
    each).
    """
    texts = list(texts)
    step = max(1.0, sum(map(len, texts)) / (4 * max_tokens))
    return [texts[int(at * step)] for at in range(int(len(texts) / step))]


@torch.inference_mode()
def read_pieces(
    model: Any,
    sequences: Iterable[Sequence[int]],
    *,
    columns: Sequence[int],
    answers: int | None,
    keep_logits: Sequence[bool],
) -> Reading:
    """Return what a model says of id sequences, whose first id is only a start.

    columns: the kept ids, which both models have. answers: only ids below it count as an answer, which is
    how the edited model is used, whose padding rows are suppressed; None: all count, as in the base.
    """
    reading = Reading()
    kept = torch.tensor(columns, device=model.device)
    for ids, keep in zip(sequences, keep_logits, strict=True):
        inputs = torch.tensor([list(ids)], device=model.device)
        if model.config.is_encoder_decoder:
            output = model(input_ids=inputs[:, 1:], decoder_input_ids=inputs[:, :-1])
        else:
            output = model(input_ids=inputs[:, :-1], use_cache=False)
        logits, target = output.logits[0].float(), inputs[0, 1:]
        narrow = logits[:, kept]
        chosen = logits.gather(1, target[:, None])[:, 0]
        kept_total = narrow.logsumexp(1)
        total = kept_total if answers == len(columns) else logits[:, :answers].logsumexp(1)
        reading.nats.append(float((total - chosen).double().sum()))
        reading.kept_nats.append(float((kept_total - chosen).double().sum()))
        reading.others.append((-(kept_total - total).expm1()).clamp(min=0).cpu())
        if keep:
            reading.logits.append(narrow.cpu())
    return reading


def check_model(
    edited: Edited, texts: Iterable[str], *, dtype: str | None = None, max_tokens: int = MAX_TOKENS
) -> list[Check]:
    """4 and 5: logits over the kept columns equal the base's, and what the edit costs on these texts.

    Text with a new token is another sequence of ids: it counts in the cost, its logits are not compared.
    """
    model = load_model(edited.base, dtype=dtype)
    start = text_start(model, edited.base)
    pieces = cut_pieces(edited, sample(texts, max_tokens), start=start)
    if not pieces:
        raise UserError("the texts hold nothing to measure; give some with --texts")
    budget = LOGIT_TOKENS
    compared = []
    for piece in pieces:
        compared.append(piece.covered and budget > 0)
        budget -= len(piece.old_ids) * compared[-1]
    old_columns = [old for old in edited.new_to_old if old is not None]

    number_type = str(model.dtype).removeprefix("torch.")
    before = read_pieces(
        model, (p.old_ids for p in pieces), columns=old_columns, answers=None, keep_logits=compared
    )
    del model
    model = load_model(edited.out, dtype=dtype)
    after = read_pieces(
        model,
        (p.new_ids for p in pieces),
        columns=range(len(old_columns)),  # the old tokens come first
        answers=edited.record.n_tokens,
        keep_logits=compared,
    )
    checks = [
        _logits_check(before, after, number_type),
        _cost_check(edited, pieces, before, after, number_type),
    ]
    return (
        [*checks, check_other_text(edited, model, start=edited.old_to_new[start])] if edited.added else checks
    )


def _logits_check(before: Reading, after: Reading, number_type: str) -> Check:
    check = Check("4 logits")
    largest = difference = 0.0
    positions = same = 0
    for old, new in zip(before.logits, after.logits, strict=True):
        difference = max(difference, float((old - new).abs().max()))
        largest = max(largest, float(old.abs().max()))
        positions += len(old)
        same += int((old.argmax(1) == new.argmax(1)).sum())
    columns = before.logits[0].shape[1] if before.logits else 0
    check.looked_at = f"{positions:,} positions × {columns:,} kept columns, {number_type}"
    check.numbers = {
        "max_abs_difference": difference,
        "largest_logit": largest,
        "same_argmax": same,
        "positions": positions,
    }
    allowed = TOLERANCE[number_type] * max(1.0, largest)
    if not positions:
        check.findings.append(
            "no text is covered by the kept tokens, so no logit was compared; give other --texts"
        )
    if not difference <= allowed:  # also catches NaN
        check.findings.append(f"max |Δ logit| is {difference:.3g}, expected at most {allowed:.3g}")
    if same < positions and difference == 0:
        check.findings.append(f"argmax differs at {positions - same} positions")
    return check


def _cost_check(
    edited: Edited, pieces: Sequence[TextPiece], before: Reading, after: Reading, number_type: str
) -> Check:
    check = Check("5 cost")

    def bits(nats: Sequence[float], which: Sequence[bool]) -> float | None:
        size = sum(piece.size for piece, chosen in zip(pieces, which, strict=True) if chosen)
        total = sum(value for value, chosen in zip(nats, which, strict=True) if chosen)
        return total / math.log(2) / size if size else None

    def tokens(sequences: Iterable[Sequence[int]]) -> float:
        return sum(len(ids) - 1 for ids in sequences) / sum(piece.chars for piece in pieces)

    every, covered = [True] * len(pieces), [piece.covered for piece in pieces]
    removed, added = (
        torch.cat([torch.zeros(1), *(m for m, chosen in zip(r.others, covered, strict=True) if chosen)])[1:]
        for r in (before, after)
    )
    renormalized, new = bits(before.kept_nats, covered), bits(after.kept_nats, covered)
    old_size, new_size = _folder_size(edited.base), _folder_size(edited.out)
    check.numbers = {
        "covered_bits_per_byte_base": bits(before.nats, covered),
        "covered_bits_per_byte_base_renormalized": renormalized,
        "covered_bits_per_byte": bits(after.nats, covered),
        "removed_probability_mean": float(removed.mean()) if len(removed) else 0.0,
        "removed_probability_max": float(removed.max()) if len(removed) else 0.0,
        **({"new_probability_mean": float(added.mean())} if edited.added and len(added) else {}),
        "bits_per_byte_base": bits(before.nats, every),
        "bits_per_byte": bits(after.nats, every),
        "tokens_per_char_base": tokens(p.old_ids for p in pieces),
        "tokens_per_char": tokens(p.new_ids for p in pieces),
        "folder_bytes_base": old_size,
        "folder_bytes": new_size,
        "folder_bytes_saved": old_size - new_size,
    }
    count = sum(len(piece.new_ids) - 1 for piece in pieces)
    check.looked_at = f"{len(pieces):,} pieces ({sum(covered):,} covered), {count:,} tokens"
    if renormalized is not None and new is not None and number_type == "float32":
        if not abs(renormalized - new) <= BITS_TOLERANCE:
            check.findings.append(
                f"covered text costs {new:.6f} bits per byte over the kept tokens, the base over the same "
                f"tokens {renormalized:.6f}; expected a difference of at most {BITS_TOLERANCE}"
            )
    return check


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
