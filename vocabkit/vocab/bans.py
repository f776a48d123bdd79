"""Which tokens generate() may not choose, so that no removed script is written: as many as can be spared.

Reads and writes nothing.

A foreign character is either whole inside a token, and then that token is not kept, or its bytes are spread
over several, and then the first of these ends with a proper prefix of its UTF-8 form. Without those tokens no
sequence of tokens spells a foreign character. But a ban must not take what allowed writing needs
(text/writing.py): where letters, signs or emoji are spelled with such a token (Llama-2 spells Ệ as E1 BB 86,
Qwen2.5 the keycap as E2 83 A3), it stays, and what can be spelled with it then is counted by script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vocabkit.text.unicode import runs_of
from vocabkit.text.utf8 import foreign_prefixes, spelled_foreign, tail_of
from vocabkit.text.writing import writing_characters
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.broken import needed_ids, spelled_by


@dataclass(frozen=True)
class Bans:
    """The bans of a tokenizer that keep all scripts but these out, and what they mean for writing.

    tokens, token_bytes: id → token as stored, and the bytes it stands for, of all tokens that there are.
    orders: how BPE merges, see vocab/plan.py: merge_orders.
    """

    tokens: Mapping[int, str]
    token_bytes: Mapping[int, bytes]
    family: str
    orders: Sequence[bpe.RankOf]
    scripts: frozenset[str]

    @cached_property
    def ids(self) -> list[int]:
        """The tokens that may not be generated, ascending."""
        prefixes = foreign_prefixes(self.scripts)
        tails = {at: tail for at, data in self.token_bytes.items() if (tail := tail_of(data)) in prefixes}
        needed = needed_ids(
            self.tokens, tails=tails, characters=writing_characters(), family=self.family, orders=self.orders
        )
        return sorted(tails.keys() - needed)

    @cached_property
    def spelled(self) -> dict[str, frozenset[str]]:
        """Script → those of its characters that other tokens still spell: allowed writing needs these."""
        banned = set(self.ids)
        generated = (data for token_id, data in self.token_bytes.items() if token_id not in banned)
        return spelled_foreign(generated, self.scripts)

    @cached_property
    def unwritable(self) -> str:
        """The characters of the allowed scripts that need a banned token."""
        starts, ends = runs_of(self.scripts, foreign=False)
        home = (chr(code) for start, end in zip(starts, ends, strict=True) for code in range(start, end))
        chars = [char for char in home if not char.isascii()]
        banned = {self.tokens[token_id] for token_id in self.ids}
        parts = spelled_by(self.tokens, chars, family=self.family, orders=self.orders)
        return "".join(char for char, some in zip(chars, parts, strict=True) if not banned.isdisjoint(some))
