"""SentencePiece model files (tokenizer.model, spiece.model): read, select pieces, write.

The format is the protocol buffer sentencepiece_model.proto of google/sentencepiece, read with the class that
the sentencepiece package ships. A piece's id is its position, so removing pieces renumbers the others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError, reading
from vocabkit.tokenizer.bpe import byte_fallback_value

NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
# ModelProto.SentencePiece.Type and TrainerSpec.ModelType of sentencepiece_model.proto
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

UNIGRAM, BPE = 1, 2


def read_spm(path: Path) -> Any:
    """Return the ModelProto of a SentencePiece file; UserError if it is not one, or of an unknown kind."""
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise UserError(
            f"{path} needs two packages to be rewritten: pip install sentencepiece protobuf"
        ) from None
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        with reading(path):
            model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise UserError(
            f"{path} is not a SentencePiece model; download it again, or remove it if nothing uses it"
        ) from None
    if not model.pieces or model.trainer_spec.model_type not in (UNIGRAM, BPE):
        raise UserError(
            f"{path} has {len(model.pieces)} pieces of model type {model.trainer_spec.model_type}, expected "
            "Unigram (1) or BPE (2); this kind of tokenizer is not supported"
        )
    unused = [piece.piece for piece in model.pieces if piece.type == UNUSED]
    if unused:
        raise UserError(
            f"{path} has {len(unused)} pieces of type UNUSED, such as {unused[0]!r}, expected none: this "
            "kind of tokenizer is not supported"
        )
    # Fields that the present format does not know may speak of pieces (old files hold self-tests that
    # sentencepiece runs, and fails, on loading).
    model.DiscardUnknownFields()
    return model


def piece_tokens(model: Any, *, path: Path, vocab: Mapping[str, int]) -> list[int]:
    """Return, for each piece, the id of the same token in tokenizer.json; UserError where it has none.

    Nearly always the two ids are the same. They differ by an offset in XLM-R-like models, and Gemma's
    tokenizer.json spells the byte piece <0x09> as a tab.
    """
    ids = []
    for piece in model.pieces:
        token_id = vocab.get(piece.piece)
        if token_id is None and piece.type == BYTE:
            value = byte_fallback_value(piece.piece)
            token_id = None if value is None else vocab.get(chr(value))
        if token_id is None:
            raise UserError(
                f"{path} has the piece {piece.piece!r}, which tokenizer.json beside it lacks; the two files "
                "belong to different tokenizers: download both again"
            )
        ids.append(token_id)
    return ids


def normal_scores(model: Any) -> dict[str, float]:
    """Return the score of each NORMAL piece: a log-probability (Unigram) or minus a merge rank (BPE)."""
    return {piece.piece: piece.score for piece in model.pieces if piece.type == NORMAL}


def required_pieces(model: Any) -> set[int]:
    """Return the positions of the pieces that must stay: all that are not NORMAL, and the extreme scores.

    Unigram takes min score − 10 as the cost of an unknown character and length · max score − 0.1 as that of a
    user-defined piece (unigram_model.cc); both stay as they were only if these two scores stay.
    """
    normal = [at for at, piece in enumerate(model.pieces) if piece.type == NORMAL]
    required = {at for at, piece in enumerate(model.pieces) if piece.type != NORMAL}
    if normal and model.trainer_spec.model_type == UNIGRAM:
        required.add(min(normal, key=lambda at: model.pieces[at].score))
        required.add(max(normal, key=lambda at: model.pieces[at].score))
    return required


def select_pieces(
    model: Any, positions: list[int], new_pieces: Sequence[str] = (), *, merged: Sequence[str] = ()
) -> bytes:
    """Return the bytes of a file that holds the pieces at these positions only, in this order.

    merged follow them as NORMAL pieces of BPE with scores below all others, falling: merged last and in this
    order. new_pieces follow these as USER_DEFINED: taken whole before anything is merged, the longest first.
    """
    trimmed = type(model)()
    trimmed.CopyFrom(model)
    del trimmed.pieces[:]
    trimmed.pieces.extend(model.pieces[at] for at in positions)
    lowest = min([0.0, *normal_scores(model).values()])
    for at, piece in enumerate(merged, 1):
        trimmed.pieces.add(piece=piece, score=lowest - at, type=NORMAL)
    for piece in new_pieces:
        trimmed.pieces.add(piece=piece, score=0.0, type=USER_DEFINED)
    trimmed.trainer_spec.vocab_size = len(trimmed.pieces)
    new_position = {old: new for new, old in enumerate(positions)}
    for field in ("unk_id", "bos_id", "eos_id", "pad_id"):
        old = getattr(model.trainer_spec, field)
        if old >= 0:  # −1: the model has no such piece
            setattr(trimmed.trainer_spec, field, new_position.get(old, -1))
    return trimmed.SerializeToString(deterministic=True)
