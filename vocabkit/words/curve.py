"""What lists of new words save on text they were not chosen on: counted with the real tokenizer, as a table
and a picture.

Reads the sources of corpus/files.py; writes a PNG on request. Measured are lines of Vietnamese text: more
than half of their words are well-formed Vietnamese syllables (English and code, of which every crawl holds
some, have 40 % at most). Three ways to make N new tokens:

    chosen   the first N of a list chosen by words/choose.py, words and, where asked for, syllables
    impact   the first N of the impact list, with the space before them
    plain    the same words without the space, as they are commonly added
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.encoder import encoded, extended
from vocabkit.tokenizer.tokenizer_json import TokenizerJson

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WAYS = ("chosen", "impact", "plain")

STEPS = (64, 128, 256, 512, 768, 1024, 1536, 2048)


def count_tokens(encoder: "Tokenizer", lines: Counter[str]) -> int:
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
    tokens = count_tokens(extended(tokenizer), lines)
    lists = dict(zip(WAYS, (chosen, impact, [word[1:] for word in impact]), strict=True))
    numbers = [*(step for step in STEPS if step < len(chosen)), len(chosen)]
    saved: dict[str, list[int]] = {way: [] for way in lists}
    for way, items in lists.items():
        for number in numbers:
            words = [item for item in items[:number] if isinstance(item, str)]
            encoder = extended(tokenizer, words, _merges(items[:number]))
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
