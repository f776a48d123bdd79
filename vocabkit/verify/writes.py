"""Rung 7: what the edited folder forbids itself to write, and what it could still write of removed scripts.

Reads its tokenizer files and generation_config.json; writes nothing. Nothing is sampled: which tokens allowed
writing needs is decided for all texts of its characters (tokenizer/broken.py), what can be spelled by an
automaton over the bytes of all tokens (text/utf8.py). The lists of syllables, emoji and the texts are encoded
by the tokenizers library besides, which knows nothing of either.
"""

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vocabkit.checkpoint.record import EditRecord
from vocabkit.files import read_json_object
from vocabkit.text.unicode import DEFAULT_SCRIPTS, first_foreign
from vocabkit.text.utf8 import foreign_prefixes, spelled_foreign, tail_of
from vocabkit.text.writing import name_spelled, writing_characters, writing_forms
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.broken import needed_ids
from vocabkit.tokenizer.settings import own_bans
from vocabkit.verify.check import Check
from vocabkit.verify.edited import Edited

if TYPE_CHECKING:
    import tokenizers

BATCH, LINES = 20_000, 50  # texts encoded in one call of the tokenizers library, and together as one text


def check_writes(edited: Edited, texts: Iterable[str]) -> Check:
    """7: nothing that Vietnamese, English or emoji need is banned, and other tokens spell no removed script
    but for what these needs leave possible, which is counted by script.

    A folder that bans nothing for the sake of scripts (--allow_all_bytes, never trimmed) promises no more
    than the first. Bans that the base has of its own are the base's.
    """
    tokenizer = edited.tokenizer
    settings = read_json_object(edited.out / "generation_config.json", missing_ok=True)
    listed = settings.get("suppress_tokens") or []
    promised = {at for ids in edited.record.suppressed.values() for at in ids if at in tokenizer.tokens}
    banned = set(own_bans(listed, tokenizer.tokens, set(tokenizer.added.values())))
    ours = banned - _bans_of_base(edited)
    check = Check("7 writes")
    # Whole characters of other scripts: somebody kept tokens of these, so that their bytes are not banned.
    held = Counter(
        script
        for at, data in tokenizer.token_bytes.items()
        if at not in banned and (script := first_foreign(data.decode("utf-8", "ignore")))
    )
    scripts = DEFAULT_SCRIPTS | set(held)
    prefixes = foreign_prefixes(DEFAULT_SCRIPTS)
    tails = {at: tail for at, data in tokenizer.token_bytes.items() if (tail := tail_of(data)) in prefixes}
    needed = needed_ids(
        tokenizer.tokens,
        tails=tails,
        characters=writing_characters(),
        family=tokenizer.family,
        orders=[bpe.rank_merges(tokenizer.merges).get],
    )
    check.find("banned, but allowed writing needs it", (_name(edited, at) for at in sorted(needed & ours)))
    forms, lost = _unwritable(edited.encoder, writing_forms(), ours)
    check.find("cannot be written", map(repr, lost))
    allowed = writing_characters()
    own = (text for text in texts if all(char.isascii() or char in allowed for char in text))
    covered, lost = _unwritable(edited.encoder, own, ours)
    check.find("cannot be written", (repr(text[:60]) for text in lost))
    check.numbers = {"forms": forms, "texts": covered, "banned": len(ours)}
    if not promised:
        check.looked_at = f"{forms:,} forms, {covered:,} texts; no ban keeps scripts out"
        return check
    generated = {at: data for at, data in tokenizer.token_bytes.items() if at not in banned}
    spelled = spelled_foreign(generated.values(), scripts)
    begin = foreign_prefixes(scripts)
    free = [at for at, tail in tails.items() if at in generated and at not in needed and tail in begin]
    check.find("can begin a removed script and nothing needs it", (_name(edited, at) for at in free))
    check.numbers["spelled"] = {script: len(chars) for script, chars in spelled.items()}
    check.numbers["held"] = dict(held)
    named = name_spelled(spelled) or "no removed script"
    check.looked_at = f"{forms:,} forms, {covered:,} texts; pieces still spell {named}"
    return check


def _bans_of_base(edited: Edited) -> set[int]:
    """What the base's own generation_config.json bans, in new ids, without what an earlier edit put there."""
    settings = read_json_object(edited.base / "generation_config.json", missing_ok=True)
    tokenizer, record = edited.base_tokenizer, EditRecord.find(edited.base)
    derived = {at for ids in record.suppressed.values() for at in ids} if record else set()
    listed = settings.get("suppress_tokens") or []
    own = own_bans(listed, tokenizer.tokens, set(tokenizer.added.values()), derived=derived)
    return {edited.old_to_new[old] for old in own if old in edited.old_to_new}


def _name(edited: Edited, token_id: int) -> str:
    return f"token {token_id} {bpe.text_for_people(edited.tokenizer.token_bytes[token_id])!r}"


def _unwritable(
    encoder: "tokenizers.Tokenizer", texts: Iterable[str], banned: set[int]
) -> tuple[int, list[str]]:
    """Return how many texts there are, and which of them are encoded with a banned token.

    Many are encoded as one, line by line, which is four times as fast; where that needs a banned token, each
    is looked at alone.
    """

    def needs_banned(some: list[str]) -> list[str]:
        encodings = encoder.encode_batch_fast(some, add_special_tokens=False)
        return [text for text, e in zip(some, encodings, strict=True) if not banned.isdisjoint(e.ids)]

    count, lost, iterator = 0, [], iter(texts)
    while batch := list(itertools.islice(iterator, BATCH)):
        count += len(batch)
        groups = {
            "\n".join(some): some for at in range(0, len(batch), LINES) if (some := batch[at : at + LINES])
        }
        for together in needs_banned(list(groups)):
            lost += needs_banned(groups[together]) or [together]
    return count, lost
