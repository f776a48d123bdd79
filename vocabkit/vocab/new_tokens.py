"""New tokens for a tokenizer: made of words and of merges, and checked to change no other text. Writes
nothing.

A word ("thời gian") becomes an added token, " thời gian": text is searched for it before anything is cut.

A merge (("Ġg", "ian") for " gian") names two tokens, as the vocabulary stores them, that BPE is to join after
all its old merges; either may itself be made by a merge before. vocabkit/tokenizer/bpe.py proves what holds
then: every word encodes as before, except that neighbours are joined. That rests on what is checked here of
each merge, with the very tokenizer that is extended: the token is new; old merges cut its string into the old
tokens of its two parts, and the extended merges make the two parts of these and then the token; with a
tokenizer.model beside tokenizer.json, which merges by scores, also that no old piece could come to be out of
the new one (check_pieces).

What the proofs say is then tried: the extended tokenizer and the old one cut texts in which new tokens stand.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabkit.errors import UserError
from vocabkit.tokenizer import bpe, spm
from vocabkit.tokenizer.bpe import unfold
from vocabkit.tokenizer.encoder import encoded, extended
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE, UNIGRAM, TokenizerJson, stored_text
from vocabkit.vocab.plan import NewMerge, NewToken, Plan

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTROL_SHAPE = re.compile(r"<\|.*\|>|<.*>|\[.*\]")  # llama.cpp takes <|…|> for a control token and hides it
SHOWN = 3  # of what is left out: spelled out; the others are counted

# Texts in which a word stands as people write it
PROBES = ("{}", "Có{}", "Có{} và", "Có{}, và", "Có{}.", "({})", "Có{}\nMột", "Có{}{}", "Có 1{}?")


def make_tokens(
    words: Sequence[str],
    tokenizer: TokenizerJson,
    encoder: "Tokenizer",
    *,
    left_out: list[str] | None = None,
) -> list[NewToken]:
    """Return the tokens of words, checked to do no harm to a tokenizer.

    encoder: the same tokenizer as the tokenizers library runs it. Raises UserError for a word that already is
    one token, that is part of a special token, or that the normalizer changes. left_out: as for
    make_merges().
    """
    contents = [f" {word}" for word in words]
    ids = [found.ids for found in encoded(encoder, contents)]
    special = [entry["content"] for entry in tokenizer.data["added_tokens"] if _is_control(entry)]
    found = []
    for word, content, old in zip(words, contents, ids, strict=True):
        inside = next((token for token in special if word in token), None)
        normal = (
            encoder.normalizer.normalize_str(content).replace("▁", " ") if encoder.normalizer else content
        )
        if len(old) == 1:
            why = f"{content!r} is already one token of {tokenizer.path}; remove what needs no token"
        elif inside:
            why = f"{word!r} is part of {inside!r}, a special token of {tokenizer.path}; remove the word"
        elif normal != content:
            why = (
                f"{content!r} is changed (to {normal!r}) by the normalizer of {tokenizer.path}, so the text "
                "could not be given back; where that is so of every word, this tokenizer cannot be extended"
            )
        else:
            found.append(NewToken(content, normalized=tokenizer.has_nfc))
            continue
        _leave_out(why, left_out)
    if left_out and not found:
        raise UserError(left_out[0])
    return found


def _leave_out(why: str, left_out: list[str] | None) -> None:
    if left_out is None:
        raise UserError(why)
    left_out.append(why)


def _is_control(entry: dict[str, Any]) -> bool:
    return bool(entry["special"] or CONTROL_SHAPE.fullmatch(entry["content"]))


def make_merges(
    merges: Sequence[bpe.Merge],
    tokenizer: TokenizerJson,
    encoder: "Tokenizer",
    *,
    file: Path,
    left_out: list[str] | None = None,
) -> list[NewMerge]:
    """Return the new tokens that these merges make, checked to change no text but by joining tokens.

    encoder: the same tokenizer as the tokenizers library runs it. Raises UserError for a tokenizer that has
    no merges, and for a merge that was not made for this one. left_out: such merges are left out instead,
    with those that build on them, and why is put in here; UserError only if none is left.
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
        replaces = (*parts.get(left, ()), *parts.get(right, ()))
        if token in parts or token in tokenizer.added:
            why = (
                f"{file}: {_shown(token, tokenizer)} already is a token of {tokenizer.path}; choose "
                "syllables for this tokenizer: build_vi_words.py -m MODEL"
            )
        elif not _is_made_of(left, right, parts=parts, encoder=encoder, rank_of=rank_of):
            why = (
                f"{file}: {_shown(token, tokenizer)} is not made of {_shown(left, tokenizer)} and "
                f"{_shown(right, tokenizer)} by {tokenizer.path}; it was chosen for another tokenizer: "
                "choose again with build_vi_words.py -m MODEL"
            )
        elif _is_split(token, tokenizer, encoder):
            why = (
                f"{file}: {_shown(token, tokenizer)} is split by {tokenizer.path} before merging begins, so "
                "that it is never made; choose again with build_vi_words.py -m MODEL"
            )
        else:
            parts[token] = replaces
            found.append(NewMerge(left, right, replaces))
            continue
        _leave_out(why, left_out)
    if left_out and not found:
        raise UserError(left_out[0])
    return found


def _is_made_of(
    left: str,
    right: str,
    *,
    parts: Mapping[str, tuple[int, ...]],
    encoder: "Tokenizer",
    rank_of: bpe.RankOf,
) -> bool:
    if left not in parts or right not in parts:
        return False
    before = tuple(piece.id for piece in encoder.model.tokenize(left + right))
    performed = bpe.derivation(left + right, rank_of)
    return before == (*parts[left], *parts[right]) and performed[-1:] == [(left, right)]


def _is_split(token: str, tokenizer: TokenizerJson, encoder: "Tokenizer") -> bool:
    """Whether a byte-level tokenizer never sees the text of a token in one piece, as "—the" in GPT-2's."""
    if tokenizer.family != BYTE_LEVEL_BPE or encoder.pre_tokenizer is None:
        return False
    try:
        text = bpe.byte_level_bytes(token).decode("utf-8")
    except UnicodeDecodeError:  # a part of a character
        return False
    return len(encoder.pre_tokenizer.pre_tokenize_str(text)) > 1


def _shown(token: str, tokenizer: TokenizerJson) -> str:
    return repr(stored_text(token, tokenizer))


def checked_encoder(
    plan: Plan, tokenizer: TokenizerJson, spm_models: Mapping[str, Any], *, before: "Tokenizer"
) -> "Tokenizer":
    """Return the tokenizer with a plan's new tokens; UserError if they would change a text they are not in.

    spm_models: file name → SentencePiece model, of the files beside tokenizer.json, which must cut alike.
    before: the tokenizer as the tokenizers library runs it.
    """
    positions: list[int] = []
    for name, model in spm_models.items():
        path = tokenizer.path.with_name(name)
        positions = spm.piece_tokens(model, path=path, vocab=tokenizer.piece_ids)
        if tokenizer.family != UNIGRAM and positions != list(tokenizer.tokens):
            raise UserError(
                f"{path} has {len(positions):,} pieces, tokenizer.json {len(tokenizer.tokens):,} tokens: a "
                f"new token would have two ids, so this tokenizer cannot be extended; remove {name} if "
                "nothing uses it"
            )
        check_pieces(plan.new_merges, model, path=path)
    merged = [merge.token for merge in plan.new_merges]

    def with_words(contents: Sequence[str]) -> "tuple[Tokenizer, bytes | None]":
        """The tokenizer with the new merges and these words, and tokenizer.model."""
        pieces = [content.replace(" ", "▁") for content in contents]
        files = [
            spm.select_pieces(model, list(range(len(positions))), pieces, merged=merged)
            for model in spm_models.values()
        ]
        return extended(tokenizer, contents, plan.merges), (files[-1] if files else None)

    if plan.new_merges:
        after, spm_model = with_words([])
        check_syllables(plan.new_merges, tokenizer, before=before, after=after, spm_model=spm_model)
    after, spm_model = with_words([token.content for token in plan.new_tokens])
    check_extended(plan.new_tokens, path=tokenizer.path, before=before, after=after, spm_model=spm_model)
    return after


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


def _syllable_probes(merges: Sequence[NewMerge], tokenizer: TokenizerJson) -> Iterator[str]:
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
    merges: Sequence[NewMerge],
    tokenizer: TokenizerJson,
    *,
    before: "Tokenizer",
    after: "Tokenizer",
    spm_model: bytes | None,
) -> None:
    """Raise UserError unless the extended tokenizer joins what it should and nothing else.

    before, after: the old and the extended tokenizer as the tokenizers library runs them, without new words;
    spm_model: the extended tokenizer.model beside it, which must cut these texts alike.
    """
    ids = {merge: after.token_to_id(merge.token) for merge in merges}
    replaces = {made: merge.replaces for merge, made in ids.items() if made is not None}
    own = {stored_text(merge.token, tokenizer) for merge in merges}
    texts = list(_syllable_probes(merges, tokenizer))
    old, new = ([e.ids for e in encoded(tokenizer, texts)] for tokenizer in (before, after))
    for text, old_ids, new_ids in zip(texts, old, new, strict=True):
        if unfold(new_ids, replaces) != old_ids or (text in own and len(new_ids) > 1):
            raise UserError(
                f"{tokenizer.path}: with new syllables {text!r} would be cut into {len(new_ids)} tokens that "
                f"are not its {len(old_ids)} old ones joined; this kind of tokenizer cannot be extended so"
            )
    _check_alike(tokenizer.path, texts, new, spm_model)


def check_extended(
    tokens: Sequence[NewToken],
    *,
    path: Path,
    before: "Tokenizer",
    after: "Tokenizer",
    spm_model: bytes | None,
) -> None:
    """Raise UserError if an extended tokenizer does not read its new words as one token and give texts back.

    before, after: the old and the extended tokenizer as the tokenizers library runs them; spm_model: the
    extended tokenizer.model beside it, which must cut these texts alike. Some kinds of tokenizer put a space
    after every added token (T5's Metaspace, Llama-2's first tokenizer.json), and then "thời gian," would come
    back as "thời gian ,": there a new word is not exact, and the folder is refused. One difference is known
    and left: where two spaces stand before a word, the sentencepiece library takes Gemma's piece of two
    spaces first and spells the word; tokenizer.json and llama.cpp take the word. Both give the text back.
    """
    texts = [probe.replace("{}", token.content) for token in tokens for probe in PROBES]
    old, new = ([e.ids for e in encoded(tokenizer, texts)] for tokenizer in (before, after))
    for text, old_ids, new_ids, token in zip(
        texts, old, new, (token for token in tokens for _ in PROBES), strict=True
    ):
        then, now = (
            tokenizer.decode(ids, skip_special_tokens=False)
            for tokenizer, ids in ((before, old_ids), (after, new_ids))
        )
        if then != now:
            raise UserError(
                f"{path}: with {token.content!r} as a token, {text!r} would be given back as {now!r}, now as "
                f"{then!r}: this kind of tokenizer puts spaces beside added tokens, so it cannot be extended"
            )
        if text == token.content and new_ids != [after.token_to_id(text)]:
            raise UserError(f"{path}: {text!r} does not become one token; remove the word")
    texts += [token.content[1:] for token in tokens]
    new += [e.ids for e in encoded(after, texts[len(new) :])]
    _check_alike(path, texts, new, spm_model)


def _check_alike(path: Path, texts: Sequence[str], ids: Sequence[list[int]], spm_model: bytes | None) -> None:
    """Raise UserError unless the SentencePiece model, if there is one, cuts texts into these ids as well."""
    if spm_model is None:
        return
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=spm_model)
    for text, here, there in zip(texts, ids, processor.encode(list(texts)), strict=True):
        if here != there:
            raise UserError(
                f"{path} and the SentencePiece model beside it would cut {text!r} differently "
                f"({len(here)} and {len(there)} tokens); this kind of tokenizer cannot be extended"
            )
