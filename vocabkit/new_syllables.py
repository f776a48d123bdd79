"""Syllables that are to become tokens: read from a file, checked against a tokenizer. Writes nothing.

A .jsonl file of new_words.py may hold rows of a second kind, in the order in which they were picked:

    {"syllable": " gian", "merge": ["Ġg", "ian"]}

The syllable is for people; merge names the two tokens, as the vocabulary stores them, that BPE is to join
after all its old merges. Either may itself be made by a row before. vocabkit/bpe.py proves what holds then:
every word encodes as before, except that neighbours are joined. That rests on what is checked here of each
row, with the very tokenizer that is extended:

    the token is new; old merges cut its string into the old tokens of its two parts, and the extended merges
    make the two parts of these and then the token; with a tokenizer.model beside tokenizer.json, which
    merges by scores, also that no old piece could come to be out of the new one (`check_pieces`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabkit import bpe, spm
from vocabkit.errors import UserError
from vocabkit.files import open_text
from vocabkit.keep import text_for_people
from vocabkit.plan import NewMerge
from vocabkit.tokenizer_json import BYTE_LEVEL_BPE, UNIGRAM, TokenizerJson


def is_syllable_row(row: object) -> bool:
    """Whether a row of a file of words is of a syllable instead."""
    return isinstance(row, dict) and "syllable" in row


def read_syllables(path: Path, *, count: int) -> list[bpe.Merge]:
    """Return the merges of the first count syllables of a file.

    Raises UserError for a row of another shape, a syllable that is there twice, or fewer than count.
    """
    made: dict[str, int] = {}
    merges: list[bpe.Merge] = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if len(merges) == count or ".jsonl" not in path.suffixes:
                break
            row = json.loads(line) if line.strip() else None  # read_words has read the file already
            if row is None or not is_syllable_row(row):
                continue
            try:
                merge = bpe.parse_merge(row.get("merge"))
            except ValueError:
                raise UserError(
                    f'{path}:{number} has no "merge" of two tokens; give rows such as '
                    '{"syllable": " gian", "merge": ["Ġg", "ian"]}'
                ) from None
            token = "".join(merge)
            if token in made:
                raise UserError(
                    f"{path}:{number} makes {token!r}, as line {made[token]} does; remove one of the two"
                )
            made[token] = number
            merges.append(merge)
    if len(merges) < count:
        raise UserError(
            f"--syllables is {count:,}, {path} has {len(merges):,} syllables; give at most as many, or "
            "choose more: build_vi_words.py --choose N --syllables M"
        )
    return merges


def make_merges(
    merges: Sequence[bpe.Merge], tokenizer: TokenizerJson, encoder: Any, *, file: Path
) -> list[NewMerge]:
    """Return the new tokens that these merges make, checked to change no text but by joining tokens.

    encoder: the same tokenizer as the tokenizers library runs it. Raises UserError for a tokenizer that has
    no merges, and for a merge that was not made for this one.
    """
    if not merges:
        return []
    if tokenizer.family == UNIGRAM:
        raise UserError(
            f"{tokenizer.path} is {UNIGRAM}, which has no merges to continue; extend without --syllables"
        )
    parts: dict[str, tuple[int, ...]] = {token: (at,) for token, at in tokenizer.vocab.items()}
    rank_of = bpe.rank_merges([*tokenizer.merges, *merges]).get
    found = []
    for left, right in merges:
        token = left + right
        if token in parts or token in tokenizer.added:
            raise UserError(
                f"{file}: {_shown(token, tokenizer)} already is a token of {tokenizer.path}; choose "
                "syllables for this tokenizer: build_vi_words.py -m MODEL"
            )
        replaces = (*parts.get(left, ()), *parts.get(right, ()))
        before = tuple(piece.id for piece in encoder.model.tokenize(token))
        performed = bpe.derivation(token, rank_of)
        if not (
            left in parts and right in parts and before == replaces and performed[-1:] == [(left, right)]
        ):
            raise UserError(
                f"{file}: {_shown(token, tokenizer)} is not made of {_shown(left, tokenizer)} and "
                f"{_shown(right, tokenizer)} by {tokenizer.path}; it was chosen for another tokenizer: "
                "choose again with build_vi_words.py -m MODEL"
            )
        parts[token] = replaces
        found.append(NewMerge(left, right, replaces))
    return found


def _shown(token: str, tokenizer: TokenizerJson) -> str:
    return repr(stored_text(token, tokenizer))


def stored_text(token: str, tokenizer: TokenizerJson) -> str:
    """Return the text of a token as it is stored, for people."""
    try:
        own = bpe.byte_level_bytes if tokenizer.family == BYTE_LEVEL_BPE else bpe.sentencepiece_bytes
        return text_for_people(own(token))
    except KeyError:  # not of this tokenizer's alphabet at all
        return token


def check_pieces(merges: Sequence[NewMerge], model: Any, *, path: Path) -> None:
    """Raise UserError if tokenizer.model could join a new piece with a neighbour into an old piece.

    It merges whatever two pieces spell a third. An old piece q that begins or ends with a new one can only
    come to be that way if q's own string is not encoded as q: where it is, the neighbours were q already.
    """
    rank_of = bpe.spm_ranks(spm.normal_scores(model))
    made = {merge.token for merge in merges}
    for piece in spm.normal_scores(model):
        if any(piece[:at] in made or piece[at:] in made for at in range(1, len(piece))):
            performed = bpe.derivation(piece, rank_of)
            if not performed or "".join(performed[-1]) != piece:
                raise UserError(
                    f"{path} could make {piece!r} out of a new syllable, which it does not make now; remove "
                    "the syllables that begin or end it"
                )


def syllable_probes(merges: Sequence[NewMerge], tokenizer: TokenizerJson) -> Iterator[str]:
    """Yield texts in which new syllables stand: alone, in a sentence, twice, inside a longer word."""
    for merge in merges:
        text = stored_text(merge.token, tokenizer)
        if "<0x" not in text:
            yield from (
                text,
                f"Có{text}, và",
                f"({text.strip()})\n{text.strip()}",
                text * 2,
                f"{text}x{text}",
            )


def check_syllables(
    merges: Sequence[NewMerge], tokenizer: TokenizerJson, *, before: Any, after: Any, spm_model: bytes | None
) -> None:
    """Raise UserError unless the extended tokenizer joins what it should and nothing else.

    before, after: the old and the extended tokenizer as the tokenizers library runs them, without new words;
    spm_model: the extended tokenizer.model beside it, which must cut these texts alike.
    """
    replaces = {after.token_to_id(merge.token): merge.replaces for merge in merges}
    own = {stored_text(merge.token, tokenizer) for merge in merges}
    texts = list(syllable_probes(merges, tokenizer))
    old, new = ([e.ids for e in t.encode_batch(texts, add_special_tokens=False)] for t in (before, after))
    for text, old_ids, new_ids in zip(texts, old, new, strict=True):
        if unfold(new_ids, replaces) != old_ids or (text in own and len(new_ids) > 1):
            raise UserError(
                f"{tokenizer.path}: with new syllables {text!r} would be cut into {len(new_ids)} tokens that "
                f"are not its {len(old_ids)} old ones joined; this kind of tokenizer cannot be extended so"
            )
    if spm_model is not None:
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_proto=spm_model)
        for text, ids, found in zip(texts, new, processor.encode(texts), strict=True):
            if ids != found:
                raise UserError(
                    f"{tokenizer.path} and the SentencePiece model beside it would cut {text!r} differently "
                    f"({len(ids)} and {len(found)} tokens); this kind of tokenizer cannot be extended so"
                )


def unfold(ids: Sequence[int], replaces: Mapping[int, Sequence[int]]) -> list[int]:
    """Return ids with each new token replaced by the old ones that it stands for.

    >>> unfold([1, 9, 2], {9: [3, 4]})
    [1, 3, 4, 2]
    """
    return [old for token_id in ids for old in replaces.get(token_id, (token_id,))]
