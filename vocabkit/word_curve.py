"""What lists of new words save on text they were not chosen on: counted with the real tokenizer, as a table
and a picture.

Reads the sources of corpus.py; writes a PNG on request. Measured are lines of Vietnamese text: more than half
of their words are well-formed Vietnamese syllables (English and code, of which every crawl holds some, have
40 % at most). Three ways to make N new tokens:

    chosen   the first N of a list chosen by choose_tokens.py, words and, where asked for, syllables
    impact   the first N of the impact list, with the space before them
    plain    the same words without the space, as they are commonly added
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocabkit import bpe
from vocabkit.corpus import Source, parse_block, print_note, read_blocks
from vocabkit.errors import UserError
from vocabkit.text import vietnamese_syllables
from vocabkit.tokenizer_json import TokenizerJson
from vocabkit.words import encoded, held_out

WAYS = ("chosen", "impact", "plain")
MAX_BYTES = 16 << 20  # of text that is measured: a longer one gives the same shares
STEPS = (64, 128, 256, 512, 768, 1024, 1536, 2048)


def is_vietnamese_line(line: str) -> bool:
    """Whether more than half of the words of a line are well-formed Vietnamese syllables.

    >>> is_vietnamese_line("Hàm softmax trả về xác suất"), is_vietnamese_line("Man is born free")
    (True, False)
    """
    import regex

    words = regex.findall(r"\p{L}[\p{L}\p{M}]*", line)
    known = vietnamese_syllables()
    return bool(words) and 2 * sum(word.lower() in known for word in words) > len(words)


def measured_lines(
    sources: Sequence[Source], *, take: Callable[[str], bool] = held_out, text_field: str | None = None
) -> Counter[str]:
    """Return the Vietnamese lines of a corpus that take() wants, with how often each comes; MAX_BYTES at
    most.

    Raises UserError if there is none.
    """
    found: Counter[str] = Counter()
    size = 0
    for source in sources:
        for block in read_blocks(source, text_field=text_field, notes=lambda note: None):
            for text in parse_block(block, text_field=text_field)[0]:
                for line in text.split("\n"):
                    if take(line) and is_vietnamese_line(line):
                        found[line] += 1
                        size += len(line.encode("utf-8"))
            if size > MAX_BYTES:
                print_note(f"note: measured on the first {MAX_BYTES >> 20} MB of held-out text")
                return found
    if not found:
        names = ", ".join(source.name for source in sources)
        raise UserError(f"{names}: no Vietnamese line to measure on; give Vietnamese texts with --held_out")
    return found


def with_words(tokenizer: TokenizerJson, words: Sequence[str], merges: Sequence[bpe.Merge] = ()) -> Any:
    """Return the tokenizer as a tokenizers.Tokenizer with these words and merges, as extend_vocab adds them.

    Words are looked for in normalized text where the normalizer composes it (NFC), else in the text as it is.
    """
    import tokenizers

    from vocabkit.verify import load_encoder

    if merges:
        data = tokenizer.trimmed(list(tokenizer.tokens), new_merges=merges)
        encoder = tokenizers.Tokenizer.from_str(json.dumps(data))
        encoder.no_truncation()
        encoder.no_padding()
    else:
        encoder = load_encoder(tokenizer.path.parent)
    add_words(encoder, words, tokenizer=tokenizer)
    return encoder


def add_words(encoder: Any, words: Sequence[str], *, tokenizer: TokenizerJson) -> None:
    """Add more words, see with_words."""
    from tokenizers import AddedToken

    encoder.add_tokens([AddedToken(word, normalized=tokenizer.has_nfc, special=False) for word in words])


def count_tokens(encoder: Any, lines: Counter[str]) -> int:
    """Return the number of tokens of these lines, each with its line end, without special tokens."""
    encodings = encoded(encoder, [line + "\n" for line in lines])
    return sum(len(encoding.ids) * count for encoding, count in zip(encodings, lines.values(), strict=True))


@dataclass(frozen=True)
class Curve:
    """Tokens of the measured text without new ones, and what the first N tokens of each way save of them.

    syllables: how many of the first N chosen are syllables.
    """

    tokens: int
    numbers: list[int]
    saved: dict[str, list[int]]  # way → tokens saved, one for each of numbers
    syllables: list[int]

    def table(self) -> str:
        """Return the lines of a table in per cent."""
        mixed = any(self.syllables)
        head = f"{'tokens':>6}" + f"{'syllables':>11}" * mixed
        lines = [head + "".join(f"{way:>10}" for way in self.saved)]
        for at, number in enumerate(self.numbers):
            shares = (saved[at] / self.tokens for saved in self.saved.values())
            line = f"{number:6,}" + f"{self.syllables[at]:11,}" * mixed
            lines.append(line + "".join(f"{share:10.2%}" for share in shares))
        return "\n".join(lines)


def measure_curve(
    tokenizer: TokenizerJson,
    lines: Counter[str],
    *,
    chosen: Sequence[str | bpe.Merge],
    impact: Sequence[str],
) -> Curve:
    """Count the tokens of lines with the first 64, 128, … new tokens of each way in the tokenizer."""
    tokens = count_tokens(with_words(tokenizer, []), lines)
    lists = dict(zip(WAYS, (chosen, impact, [word[1:] for word in impact]), strict=True))
    numbers = [*(step for step in STEPS if step < len(chosen)), len(chosen)]
    saved: dict[str, list[int]] = {}
    for way, items in lists.items():
        encoder, known = None, 0
        saved[way] = []
        for before, number in zip([0, *numbers[:-1]], numbers, strict=True):
            merges = _merges(items[:number])
            if encoder is None or len(merges) > known:  # a merge cannot be put into a tokenizer that is made
                encoder, known, before = with_words(tokenizer, [], merges), len(merges), 0
            words = [item for item in items[before:number] if isinstance(item, str)]
            add_words(encoder, words, tokenizer=tokenizer)
            saved[way].append(tokens - count_tokens(encoder, lines))
    return Curve(tokens, numbers, saved, [len(_merges(chosen[:number])) for number in numbers])


def _merges(items: Sequence[str | bpe.Merge]) -> list[bpe.Merge]:
    return [item for item in items if not isinstance(item, str)]


def plot_curve(curve: Curve, path: Path, *, title: str) -> None:
    """Write a curve as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = "words and syllables" if any(curve.syllables) else "overlap-free"
    labels = (f"chosen, {kinds}", "by impact, with the space", "by impact, without the space")
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for label, saved in zip(labels, curve.saved.values(), strict=True):
        shares = [0.0, *(100 * value / curve.tokens for value in saved)]
        axes.plot([0, *curve.numbers], shares, marker="o", markersize=3, label=label)
    axes.set_xlabel("new tokens")
    axes.set_ylabel("tokens saved on held-out Vietnamese text, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
