"""From a kept list to a plan: which old token becomes which new one, how many rows, what may not be
generated.

Reads and writes nothing.
"""

import functools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vocabkit.text.unicode import DEFAULT_SCRIPTS, foreign_script
from vocabkit.text.writing import name_spelled
from vocabkit.tokenizer import bpe, spm
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE, UNIGRAM, TokenizerJson
from vocabkit.vocab.bans import Bans

ROWS_MULTIPLE = 64  # of a new model, unless asked otherwise: fast for the matrix units of GPUs

# Keys of Plan.suppressed
PADDING = "padding rows"
FOREIGN = "could begin a character of a removed script"


@dataclass(frozen=True)
class NewToken:
    """A token that the source does not have: its text as it stands in running text, space first.

    normalized: looked for in the normalized text, so that its decomposed form is found too.
    """

    content: str
    normalized: bool

    def entry(self) -> dict[str, Any]:
        """Return the fields that tokenizer.json and tokenizer_config.json give an added token.

        Not special: llama.cpp does not print special tokens, and skip_special_tokens would drop the word.
        """
        no = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        return {"content": self.content, **no, "normalized": self.normalized, "special": False}


@dataclass(frozen=True)
class NewMerge:
    """A token that BPE makes of two others, old ones or new ones before it, after all its old merges.

    left, right: as the vocabulary stores them. replaces: the old ids of the two, in reading order.
    """

    left: str
    right: str
    replaces: tuple[int, ...]

    @property
    def token(self) -> str:
        """The token as the vocabulary stores it."""
        return self.left + self.right


@dataclass(frozen=True)
class Plan:
    """What an edit does, decided before anything is written.

    new_to_old: the old id of each new one, ascending, so that tokens stay in the old order.
    vocab_size: rows of the new matrices; those from n_tokens on are padding.
    suppressed: reason → new ids that generate() must not choose.
    requested, always_kept, added_by_closure: how many tokens are kept for which reason, first that fits.
    written_scripts: scripts outside the allowed ones that the kept list itself holds tokens of.
    bans: what FOREIGN in suppressed means for writing, None with all bytes allowed.
    new_merges, new_tokens: what is added after the kept tokens: first what BPE makes by itself, then added
    tokens, since runtimes number added tokens from the end of the vocabulary on.
    """

    new_to_old: list[int]
    vocab_size: int
    suppressed: dict[str, list[int]]
    requested: int
    always_kept: int
    added_by_closure: int
    written_scripts: dict[str, int] = field(default_factory=dict)
    bans: Bans | None = None
    new_merges: tuple[NewMerge, ...] = ()
    new_tokens: tuple[NewToken, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the new tokenizer has."""
        return len(self.new_to_old) + len(self.new_merges) + len(self.new_tokens)

    @property
    def merges(self) -> list[bpe.Merge]:
        """The new merges as tokenizer files hold them."""
        return [(merge.left, merge.right) for merge in self.new_merges]

    @functools.cached_property
    def new_ids(self) -> dict[int, NewToken]:
        """Id → new added token, in order; they follow the last token directly."""
        return dict(enumerate(self.new_tokens, len(self.new_to_old) + len(self.new_merges)))

    @functools.cached_property
    def old_to_new(self) -> dict[int, int]:
        """Old id → new id, for the kept tokens."""
        return {old: new for new, old in enumerate(self.new_to_old)}

    @property
    def pad_rows(self) -> list[int] | None:
        """First and last padding row, or None if every row has a token."""
        return [self.n_tokens, self.vocab_size - 1] if self.vocab_size > self.n_tokens else None


def merge_orders(tokenizer: TokenizerJson, spm_models: Iterable[Any] = ()) -> list[bpe.RankOf]:
    """Return the orders in which a BPE's runtimes merge: that of tokenizer.json, those of tokenizer.model."""
    by_score = [m for m in spm_models if m.trainer_spec.model_type == spm.BPE]
    return [
        bpe.rank_merges(tokenizer.merges).get,
        *(bpe.spm_ranks(spm.normal_scores(model)) for model in by_score),
    ]


def close_ids(tokenizer: TokenizerJson, ids: Iterable[int], spm_models: Iterable[Any] = ()) -> set[int]:
    """Return ids with all that BPE needs to make these tokens as before (vocabkit/tokenizer/bpe.py has the
    theorem).

    A tokenizer.model beside tokenizer.json merges by scores instead of ranks (llama.cpp does so too), which
    can take other ways to the same token: the result is closed under both.
    """
    closed = set(ids)
    if tokenizer.family == UNIGRAM:
        return closed
    orders = merge_orders(tokenizer, spm_models)
    vocab, fresh = tokenizer.vocab, closed
    while fresh:
        names = {tokenizer.tokens[token_id] for token_id in fresh} & vocab.keys()
        found = {vocab[token] for order in orders for token in bpe.closure(names, order) if token in vocab}
        fresh = found - closed if len(orders) > 1 else set()  # one order: the closure is closed already
        closed |= found
    return closed


def make_plan(
    tokenizer: TokenizerJson,
    keep_ids: Iterable[int],
    *,
    required_ids: Iterable[int] = (),
    spm_models: Iterable[Any] = (),
    scripts: frozenset[str] = DEFAULT_SCRIPTS,
    pad_multiple: int = ROWS_MULTIPLE,
    allow_all_bytes: bool = False,
) -> Plan:
    """Return the plan that keeps these ids and whatever must stay with them.

    Always kept: single bytes, added tokens, ids that the files of the checkpoint name (required_ids, and
    those of tokenizer.json itself); then the closure. With allow_all_bytes only padding is suppressed.
    """
    spm_models = list(spm_models)
    requested = set(keep_ids)
    always = tokenizer.byte_ids() | tokenizer.referenced_ids() | set(required_ids)
    closed = close_ids(tokenizer, requested | always, spm_models)
    new_to_old = sorted(closed)
    n_tokens = len(new_to_old)
    vocab_size = round_up(n_tokens, pad_multiple)
    written = _foreign_scripts(tokenizer, requested - always, scripts)
    suppressed: dict[str, list[int]] = {PADDING: list(range(n_tokens, vocab_size))}
    bans = None
    if not allow_all_bytes:
        bans = Bans(
            {new: tokenizer.tokens[old] for new, old in enumerate(new_to_old)},
            {new: tokenizer.token_bytes[old] for new, old in enumerate(new_to_old)},
            family=tokenizer.family,
            orders=merge_orders(tokenizer, spm_models),
            scripts=scripts | set(written),
        )
        suppressed[FOREIGN] = bans.ids
    return Plan(
        new_to_old=new_to_old,
        vocab_size=vocab_size,
        suppressed={reason: ids for reason, ids in suppressed.items() if ids},
        requested=len(requested),
        always_kept=len(always - requested),
        added_by_closure=len(closed - requested - always),
        written_scripts=written,
        bans=bans,
    )


def extend_plan(
    tokenizer: TokenizerJson,
    new_tokens: Sequence[NewToken],
    *,
    keep_out: bool,
    required_ids: Iterable[int] = (),
    new_merges: Sequence[NewMerge] = (),
    pad_multiple: int = ROWS_MULTIPLE,
) -> Plan:
    """Return the plan that keeps every token and adds new ones after the last.

    keep_out: whether the tokens of the source, and now the new ones too, must not spell a script that they do
    not hold. Holes between the source's ids are closed; its padding rows are replaced by the new ones.
    """
    new_to_old = list(tokenizer.tokens)
    n_tokens = len(new_to_old) + len(new_merges) + len(new_tokens)
    vocab_size = round_up(n_tokens, pad_multiple)
    suppressed = {PADDING: list(range(n_tokens, vocab_size))}
    if keep_out:
        suppressed[FOREIGN] = derive_bans(tokenizer, required_ids=required_ids, new_merges=new_merges).ids
    return Plan(
        new_to_old=new_to_old,
        vocab_size=vocab_size,
        suppressed={reason: ids for reason, ids in suppressed.items() if ids},
        requested=len(new_merges) + len(new_tokens),
        always_kept=len(new_to_old),
        added_by_closure=0,
        new_merges=tuple(new_merges),
        new_tokens=tuple(new_tokens),
    )


def derive_bans(
    tokenizer: TokenizerJson, *, required_ids: Iterable[int] = (), new_merges: Sequence[NewMerge] = ()
) -> Bans:
    """Return the bans of a trimmed tokenizer as it is, by its tokens in order and new merges after them.

    What an earlier edit banned does not count: tokens may have come since.
    """
    names = [*tokenizer.tokens.values(), *(merge.token for merge in new_merges)]
    data = list(tokenizer.token_bytes.values())
    own = bpe.byte_level_bytes if tokenizer.family == BYTE_LEVEL_BPE else bpe.sentencepiece_bytes
    data += [own(merge.token) for merge in new_merges]
    listed = tokenizer.tokens.keys() - tokenizer.byte_ids() - tokenizer.referenced_ids() - set(required_ids)
    ranks = bpe.rank_merges([*tokenizer.merges, *((merge.left, merge.right) for merge in new_merges)])
    return Bans(
        dict(enumerate(names)),
        dict(enumerate(data)),
        family=tokenizer.family,
        orders=[ranks.get],
        scripts=DEFAULT_SCRIPTS | set(_foreign_scripts(tokenizer, listed, DEFAULT_SCRIPTS)),
    )


def own_script(tokenizer: TokenizerJson, ids: Iterable[int]) -> set[int]:
    """Return those ids whose tokens hold no whole character of a foreign script."""
    return {token_id for token_id in ids if not _foreign_scripts(tokenizer, [token_id], DEFAULT_SCRIPTS)}


def round_up(count: int, multiple: int) -> int:
    """Return the least multiple that is not below count.

    >>> round_up(94948, 64), round_up(64, 64)
    (94976, 64)
    """
    return -(-count // multiple) * multiple


def _foreign_scripts(tokenizer: TokenizerJson, ids: Iterable[int], scripts: frozenset[str]) -> dict[str, int]:
    """Return the foreign scripts of whole characters in these tokens, with the number of tokens that hold
    them.

    Somebody who keeps such tokens wants the script written, so its bytes are not suppressed.
    """
    counts: dict[str, int] = {}
    for token_id in ids:
        characters = set(tokenizer.token_bytes[token_id].decode("utf-8", errors="ignore"))
        for script in {foreign_script(char, scripts) for char in characters if not char.isascii()} - {None}:
            assert script is not None
            counts[script] = counts.get(script, 0) + 1
    return counts


def suppressed_ids(suppressed: Mapping[str, Iterable[int]]) -> list[int]:
    """Return all suppressed ids in order, each once."""
    return sorted({token_id for ids in suppressed.values() for token_id in ids})


def writing_of(plan: Plan) -> list[str]:
    """Return lines for people: what can still be spelled of removed scripts, and what cannot be written."""
    lines: list[str] = []
    if plan.bans is None:
        return lines
    if plan.bans.spelled:
        named = name_spelled(plan.bans.spelled)
        lines.append(f"could still be spelled, by bytes that allowed writing needs: {named}")
    if lost := plan.bans.unwritable:
        signs = [char for char in lost if ord(char) >= 0x2000 and unicodedata.category(char)[0] in "SP"]
        shown = " ".join([*signs, *(char for char in lost if char.isalpha())][:16])
        lines.append(
            f"cannot be written: {len(lost):,} rare characters of the allowed scripts, such as {shown}"
        )
    return lines
