"""The checks that an edited checkpoint is what it claims to be: files, tokenizer, rows (logits and cost:
measure.py).

Each check reads the two folders and returns a Check with its findings; it writes nothing and repairs nothing.
A finding is a sentence that names the file or the token; an edit is right if no check has one.
"""

import functools
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocabkit import spm
from vocabkit.chat_template import render_chat
from vocabkit.checkpoint import (
    Checkpoint,
    read_checkpoint,
)
from vocabkit.config_ids import collect_ids
from vocabkit.errors import UserError
from vocabkit.files import read_json, read_json_object, read_versioned, sha256_file
from vocabkit.new_syllables import unfold
from vocabkit.text import nfc
from vocabkit.tokenizer_files import read_spm_models, settings_files
from vocabkit.tokenizer_json import UNIGRAM, TokenizerJson, read_tokenizer_json
from vocabkit.vocab_tensors import VocabTensors, find_vocab_tensors

EDIT_FILE = "vocab_edit.json"
EDIT_FORMAT = ("vocab-edit", 1)
SHOWN = 5  # findings of one kind that are spelled out; the others are counted
BATCH = 512  # texts encoded in one call of the tokenizers library


@dataclass
class Check:
    """One rung of the ladder: its name, a line of what was looked at, measured numbers, findings (empty: it
    holds).
    """

    name: str
    looked_at: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def find(self, kind: str, cases: Iterable[str]) -> None:
        """Add a finding for each case of a kind, the first few spelled out and the rest counted."""
        cases = list(cases)
        self.findings += [f"{kind}: {case}" for case in cases[:SHOWN]]
        if len(cases) > SHOWN:
            self.findings.append(f"{kind}: {len(cases) - SHOWN:,} more")


@dataclass(frozen=True)
class Edited:
    """An edited folder beside its base, opened once for all checks."""

    base: Path
    out: Path
    edit: dict[str, Any]
    base_tokenizer: TokenizerJson
    tokenizer: TokenizerJson
    opened_base: Checkpoint | None = None  # the base's weights where they are open already, or not in base

    @functools.cached_property
    def base_checkpoint(self) -> Checkpoint:
        """The base's weights; UserError if they are damaged."""
        return self.opened_base or read_checkpoint(self.base)

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        """The edited weights; UserError if they are damaged."""
        return read_checkpoint(self.out)

    @functools.cached_property
    def base_tensors(self) -> VocabTensors:
        """The base's tensors with one row per token; UserError if there are none."""
        return find_vocab_tensors(self.base_checkpoint, read_json_object(self.base / "config.json"))

    @functools.cached_property
    def tensors(self) -> VocabTensors:
        """The edited tensors with one row per token; UserError if there are none."""
        return find_vocab_tensors(self.checkpoint, read_json_object(self.out / "config.json"))

    @functools.cached_property
    def new_to_old(self) -> list[int | None]:
        """The old id of each new one, None for a token that the base does not have."""
        return self.edit["new_to_old"]

    @functools.cached_property
    def old_to_new(self) -> dict[int, int]:
        """Old id → new id, for the tokens that both have."""
        return {old: new for new, old in enumerate(self.new_to_old) if old is not None}

    @functools.cached_property
    def added(self) -> dict[int, str]:
        """Id → text of the tokens that the base does not have, as vocab_edit.json names them: first what BPE
        makes itself, then added tokens.
        """
        ids = [new for new, old in enumerate(self.new_to_old) if old is None]
        words, syllables = (self.edit.get(name, []) for name in ("words", "syllables"))
        if len(words) + len(syllables) != len(ids):
            raise UserError(
                f"{self.out / EDIT_FILE} names {len(words)} words and {len(syllables)} syllables, but "
                f"{len(ids)} tokens are new; extend the base again"
            )
        texts = [row["syllable"] for row in syllables] + [" " + word.replace("▁", " ") for word in words]
        return dict(zip(ids, texts, strict=True))

    @functools.cached_property
    def merged(self) -> dict[int, list[int]]:
        """Id → the old ids that it replaces, as this folder numbers them, of what new merges make."""
        replaces = self.edit.get("replaces", [])[: len(self.edit.get("syllables", []))]
        return {
            new: [self.old_to_new[old] for old in olds]
            for new, olds in zip(list(self.added)[: len(replaces)], replaces, strict=True)
        }

    @functools.cached_property
    def words(self) -> dict[int, str]:
        """Id → text of the new added tokens."""
        return {new: text for new, text in self.added.items() if new not in self.merged}

    @functools.cached_property
    def words_encoder(self) -> tuple[Any, dict[int, int]]:
        """The base's tokenizer with the new words alone, and its ids → the edited folder's."""
        from tokenizers import AddedToken

        encoder, normalized = load_encoder(self.base), self.tokenizer.has_nfc
        encoder.add_tokens([AddedToken(t, normalized=normalized, special=False) for t in self.words.values()])
        ids = {encoder.token_to_id(text): new for new, text in self.words.items()}
        return encoder, self.old_to_new | ids

    def with_words(self, text: str) -> list[int]:
        """Return what the base's tokenizer would make of a text with the new words alone, in new ids."""
        encoder, ids = self.words_encoder
        return [ids[token_id] for token_id in encoder.encode(text, add_special_tokens=False).ids]

    @functools.cached_property
    def base_encoder(self) -> Any:
        """The base's tokenizer as the tokenizers library runs it."""
        return load_encoder(self.base)

    @functools.cached_property
    def encoder(self) -> Any:
        """The edited tokenizer as the tokenizers library runs it."""
        return load_encoder(self.out)


def load_encoder(folder: Path) -> Any:
    """Return tokenizers.Tokenizer of a folder, without truncation or padding; UserError if the library
    refuses it.
    """
    import tokenizers

    path = folder / "tokenizer.json"
    try:
        encoder = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path} is refused by tokenizers: {error}; download the file again") from None
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def open_edited(base: Path, out: Path, *, base_tokenizer: TokenizerJson | None = None) -> Edited:
    """Open an edited folder and its base; UserError if vocab_edit.json is missing or names another base.

    base_tokenizer: the base's tokenizer.json, where it has been read already. Weights are opened by the first
    check that needs them.
    """
    path = out / EDIT_FILE
    if not path.is_file():
        raise UserError(
            f"{path} is missing; -m must be a folder that this toolkit wrote, -b the one it came from"
        )
    edit = read_versioned(path, format=EDIT_FORMAT[0], version=EDIT_FORMAT[1])
    base_tokenizer = base_tokenizer or read_tokenizer_json(base)
    found = sha256_file(base_tokenizer.path)
    if found != edit.get("base_tokenizer_sha256"):
        wanted = str(edit.get("base_tokenizer_sha256"))
        raise UserError(
            f"{base / 'tokenizer.json'} has sha256 {found[:12]}…, {path} was made from {wanted[:12]}…; "
            f"give that base: -b {edit.get('base_model')}"
        )
    return Edited(base, out, edit, base_tokenizer, read_tokenizer_json(out))


def check_files(edited: Edited) -> Check:
    """1: every JSON parses, the index is complete, rows == vocab_size, every id named has a token, files
    agree.
    """
    out, tokenizer = edited.out, edited.tokenizer
    check = Check("1 files", f"{sum(path.is_file() for path in out.iterdir())} files")
    n_tokens, vocab_size = edited.edit["n_tokens"], edited.edit["vocab_size"]
    if sorted(tokenizer.tokens) != list(range(n_tokens)):
        check.findings.append(
            f"tokenizer.json has ids up to {max(tokenizer.tokens)}, expected 0 to {n_tokens - 1}"
        )
    if len(edited.new_to_old) != n_tokens:
        check.findings.append(f"{EDIT_FILE} maps {len(edited.new_to_old)} tokens, expected {n_tokens}")
    for path in settings_files(out):
        settings = read_json(path)
        # Padding rows have no token and may only be suppressed.
        suppressed = settings.pop("suppress_tokens", None) if isinstance(settings, dict) else None
        for limit, part in ((n_tokens, settings), (vocab_size, {"suppress_tokens": suppressed})):
            for token_id, where in collect_ids(part).items():
                if token_id >= limit:
                    check.findings.append(f"{path.name}: {where} is {token_id}, expected less than {limit}")
    check.find("other tokenizer files", _disagreements(out, tokenizer))
    try:
        checkpoint, tensors = edited.checkpoint, edited.tensors
    except UserError as error:
        check.findings.append(str(error))
        return check
    if tensors.rows != vocab_size:
        check.findings.append(f"config.json has vocab_size {tensors.rows}, {EDIT_FILE} {vocab_size}")
    check.numbers = {"n_tokens": n_tokens, "vocab_size": vocab_size, "checkpoint_bytes": checkpoint.size}
    return check


def _disagreements(out: Path, tokenizer: TokenizerJson) -> Iterator[str]:
    """Yield what vocab.json, added_tokens.json, merges.txt and SentencePiece files say other than
    tokenizer.json.
    """
    known = tokenizer.vocab | tokenizer.added
    for name in ("vocab.json", "added_tokens.json"):
        if (out / name).is_file():
            listed = read_json_object(out / name)
            yield from (f"{name}: {token!r} is {i}" for token, i in listed.items() if known.get(token) != i)
            if name == "vocab.json":
                yield from (f"{name} lacks {token!r}" for token in tokenizer.vocab.keys() - listed.keys())
    if (out / "merges.txt").is_file():
        lines = (out / "merges.txt").read_text(encoding="utf-8").split("\n")
        body = [line for line in lines[lines[0].startswith("#version") :] if line]
        if body != [" ".join(merge) for merge in tokenizer.merges]:
            yield f"merges.txt has {len(body)} merges, not the {len(tokenizer.merges)} of tokenizer.json"
    for name, model in read_spm_models(out).items():
        ids = spm.piece_tokens(model, path=out / name, vocab=tokenizer.piece_ids)
        if ids != sorted(ids):
            yield f"{name} has its pieces in another order than tokenizer.json"


def check_tokenizer(edited: Edited, texts: Iterable[str], *, name: str = "the given texts") -> Check:
    """2: kept tokens encode as before, every text decodes as before, and the chat template renders to mapped
    ids; new merges do nothing but join tokens of the encoding that the base has, with the new words.

    For Unigram, which has no bytes to fall back on, only texts whose
    old encoding is kept must decode as before; the others are counted.
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
    rows = edited.edit.get("syllables", [])
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


def _encode(encoder: Any, texts: Sequence[str]) -> list[list[int]]:
    # "fast": without offsets, which nobody asks for here.
    return [encoding.ids for encoding in encoder.encode_batch_fast(list(texts), add_special_tokens=False)]


def _all_forms(texts: Iterable[str]) -> Iterator[str]:
    """Yield each text as it is, composed and decomposed: Vietnamese arrives in all three forms."""
    for text in texts:
        yield from dict.fromkeys((text, nfc(text), unicodedata.normalize("NFD", text)))


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
