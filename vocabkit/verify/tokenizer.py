"""Rung 2: the edited tokenizer beside the base's, on texts, on every token's own text, on the chat template.

Reads the tokenizer files of both folders; writes nothing and repairs nothing.
"""

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from vocabkit.checkpoint.record import EDIT_FILE
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.bpe import unfold
from vocabkit.tokenizer.chat_template import render_chat
from vocabkit.tokenizer.tokenizer_json import UNIGRAM
from vocabkit.verify.check import SHOWN, Check
from vocabkit.verify.edited import Edited

if TYPE_CHECKING:
    import tokenizers

Item = TypeVar("Item")

BATCH = 512  # texts encoded in one call of the tokenizers library


def check_tokenizer(edited: Edited, texts: Iterable[str], *, name: str = "the given texts") -> Check:
    """2: kept tokens encode as before, every text decodes as before, and the chat template renders to mapped
    ids; new merges do nothing but join tokens of the encoding that the base has, with the new words.

    For Unigram, which has no bytes to fall back on, only texts whose old encoding is kept must decode as
    before; the others are counted.
    """
    check = Check("2 tokenizer")
    changed = [
        f"{edited.tokenizer.tokens.get(new)!r} at {new}, base has {edited.base_tokenizer.tokens.get(old)!r}"
        for new, old in enumerate(edited.new_to_old)
        if old is not None and edited.tokenizer.tokens.get(new) != edited.base_tokenizer.tokens.get(old)
    ]
    check.find("token moved", changed)
    check.find("new token", _new_tokens(edited))
    lossless = edited.base_tokenizer.family != UNIGRAM or bool(
        edited.base_tokenizer.data["model"].get("byte_fallback")
    )
    count = dict.fromkeys(
        ("texts", "covered", "mismatches", "decode_differences", "tokens", "base_tokens", "chars"), 0
    ) | ({"with_new_tokens": 0} if edited.added else {})
    count |= {"joined": 0, "joined_differences": 0} if edited.merged else {}
    for batch in _batches(_all_forms(texts)):
        old_ids, new_ids = _encode(edited.base_encoder, batch), _encode(edited.encoder, batch)
        old_texts = edited.base_encoder.decode_batch(old_ids, skip_special_tokens=False)
        new_texts = edited.encoder.decode_batch(new_ids, skip_special_tokens=False)
        for text, old, new, before, after in zip(batch, old_ids, new_ids, old_texts, new_texts, strict=True):
            fresh = bool(edited.added.keys() & set(new))
            covered = edited.old_to_new.keys() >= set(old) and not fresh
            if fresh:
                count["with_new_tokens"] += 1
            count["texts"] += 1
            count["covered"] += covered
            count["tokens"] += len(new)
            count["base_tokens"] += len(old)
            count["chars"] += len(text)
            if covered and new != [edited.old_to_new[token_id] for token_id in old]:
                count["mismatches"] += 1
                check.find("encodes differently", [_excerpt(text)] if count["mismatches"] <= SHOWN else [])
            if edited.merged and fresh:
                apart = unfold(new, edited.merged)
                count["joined"] += len(apart) > len(new)
                if apart != edited.with_words(text):
                    count["joined_differences"] += 1
                    check.find("joins other tokens", [_excerpt(text)])
            if before != after and (lossless or covered or fresh):
                count["decode_differences"] += 1
                check.find(
                    "decodes differently", [_excerpt(text)] if count["decode_differences"] <= SHOWN else []
                )
    check.numbers = count | _own_texts(edited, check) | _chat(edited, check)
    check.looked_at = (
        f"{count['texts']:,} texts ({count['covered']:,} covered) of {name}, {check.numbers['own']:,} tokens"
    )
    return check


def _new_tokens(edited: Edited) -> Iterator[str]:
    """Yield which new tokens are not those of vocab_edit.json, or not made of the words' text in any form or
    of the syllables' old tokens.
    """
    rows = edited.record.syllables or []
    last = edited.tokenizer.merges[len(edited.tokenizer.merges) - len(rows) :]
    if last != [tuple(row["merge"]) for row in rows]:
        yield f"the last {len(rows)} merges are not those of {EDIT_FILE}"
    for new, row in zip(edited.merged, rows, strict=True):
        token = "".join(row["merge"])
        ids, replaced = (
            [piece.id for piece in encoder.model.tokenize(token)]
            for encoder in (edited.encoder, edited.base_encoder)
        )
        replaced = [edited.old_to_new[old] for old in replaced]
        if edited.tokenizer.tokens[new] != token or ids != [new] or replaced != edited.merged[new]:
            yield f"{token!r} has the ids {ids} for {replaced}, expected {new} for {edited.merged[new]}"
    contents = list(edited.words.values())
    forms = [contents]
    if edited.tokenizer.has_nfc:
        forms.append([unicodedata.normalize("NFD", text) for text in contents])
    for texts in forms:
        for new, text, ids in zip(edited.words, texts, _encode(edited.encoder, texts), strict=True):
            if ids != [new]:
                yield f"{text!r} has the ids {ids}, expected {new}"


def _own_texts(edited: Edited, check: Check) -> dict[str, int]:
    """Encode the text of every kept token by itself: the sharpest covered texts there are.

    Also counts the kept tokens that the base never makes out of their own text (trap: NFC, the splitting
    regex).
    """
    token_bytes = edited.base_tokenizer.token_bytes
    own: list[tuple[int, str]] = []
    fragments = 0
    for old in edited.old_to_new:
        try:
            own.append((old, token_bytes[old].decode("utf-8")))
        except UnicodeDecodeError:
            fragments += 1
    covered, unreachable, different = 0, 0, []
    for batch in _batches(own):
        strings = [text for _, text in batch]
        for (old, text), before, after in zip(
            batch, _encode(edited.base_encoder, strings), _encode(edited.encoder, strings), strict=True
        ):
            unreachable += before != [old]
            if edited.old_to_new.keys() >= set(before) and not edited.added.keys() & set(after):
                covered += 1
                if after != [edited.old_to_new[token_id] for token_id in before]:
                    different.append(repr(text))
    check.find("token's own text encodes differently", different)
    return {"own": len(own), "own_covered": covered, "fragments": fragments, "unreachable": unreachable}


def _chat(edited: Edited, check: Check) -> dict[str, int]:
    """Render the chat template of both folders for one conversation and compare the ids."""
    before, after = (render_chat(folder) for folder in (edited.base, edited.out))
    if before != after:
        check.findings.append("chat template: the two folders render one conversation differently")
    if not before or not after:
        return {"chat_tokens": 0}
    (old,), (new,) = _encode(edited.base_encoder, [before]), _encode(edited.encoder, [after])
    lost = {token_id for token_id in old if token_id not in edited.old_to_new}
    # A small list may lack a word of the conversation, a new token may be in it; its frame, the other added
    # tokens, must be as before.
    if lost or edited.added.keys() & set(new):
        added, base_added = (set(t.added.values()) for t in (edited.tokenizer, edited.base_tokenizer))
        added -= edited.added.keys()
        old, new = [i for i in old if i in base_added], [i for i in new if i in added]
    if new != [edited.old_to_new.get(token_id) for token_id in old]:
        check.findings.append("chat template: renders to other ids than the base's, mapped")
    return {"chat_tokens": len(new), "chat_tokens_lost": len(lost)}


def _encode(encoder: "tokenizers.Tokenizer", texts: Sequence[str]) -> list[list[int]]:
    # "fast": without offsets, which nobody asks for here.
    return [encoding.ids for encoding in encoder.encode_batch_fast(list(texts), add_special_tokens=False)]


def _all_forms(texts: Iterable[str]) -> Iterator[str]:
    """Yield each text as it is, composed and decomposed: Vietnamese arrives in all three forms."""
    for text in texts:
        yield from dict.fromkeys((text, nfc(text), unicodedata.normalize("NFD", text)))


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
