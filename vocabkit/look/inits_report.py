"""What compare_inits found, as a table, JSON and a picture. Reads and writes nothing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vocabkit.look.plots import BLUE, GREY, RED
from vocabkit.rows.estimates import Estimate

FORMAT = ("compare-inits", 1)
BASE = "base"  # the row of the table that is the model without new words
Results = Mapping[str, Mapping[str, Estimate]]  # init → measure → what was found


@dataclass(frozen=True)
class Measure:
    """A column: title, decimals, how its best value is found, and the words that explain it.

    best: "lowest", "highest" or "nearest 0". is_log: estimated as a logarithm, shown as its exponential.
    other: of text in which the new words do not belong: a table of its own.
    """

    title: str
    decimals: int
    best: str
    meaning: str
    is_log: bool = False
    other: bool = False


def _other(title: str, decimals: int, meaning: str) -> Measure:
    return Measure(title, decimals, "lowest", meaning, other=True)


MEASURES = {
    "input_kl": Measure(
        "input KL", 4, "lowest", "KL(base ∥ edited), nats, of the next token after the word, over old tokens"
    ),
    "input_top1": Measure("top-1", 3, "highest", "share of positions with the same likeliest old token"),
    "output_log_ratio": Measure("Δ log p", 2, "nearest 0", "log p(new word) − Σ log p(its old tokens), nats"),
    "output_log_ratio_abs": Measure("|Δ log p|", 2, "lowest", "mean of its absolute values"),
    "rank_new": Measure("rank/new", 1, "lowest", "rank of the word's row among the new rows, geometric mean",
                        is_log=True),
    "rank_all": Measure("rank/all", 0, "lowest", "the same among all rows", is_log=True),
    "fill_left": Measure("fill left", 2, "highest", "share of gaps where the text before finds the word"),
    "fill_both": Measure("fill both", 2, "highest", "the same by the text before and after the gap"),
    "bits_change": Measure("Δ bits/byte", 4, "lowest", "bits per byte of held-out text, edited − base"),
    "english_share": _other("English share", 4, "mean share of probability that new tokens take"),
    "english_share_p99": _other("p99", 4, "its 99th percentile over places"),
    "english_bits_per_byte": _other("Δ bits/byte", 4, "bits per byte that English costs more"),
    "vietnamese_share": _other("Vietnamese share", 4, "the same in Vietnamese, where no new word stands"),
    "vietnamese_share_p99": _other("p99", 4, "its 99th percentile over places"),
    "vietnamese_bits_per_byte": _other("Δ bits/byte", 4, "bits per byte that this Vietnamese costs more"),
    "chat_prompts_changed": _other("answers changed", 2, "chat prompts whose answer begins otherwise"),
}  # fmt: skip


def shown(estimate: Estimate, measure: Measure) -> tuple[float, float | None]:
    """Return a value and its standard error as the table has them.

    >>> shown(Estimate(math.log(8), 0.5, 2, 2), MEASURES["rank_new"])  # the delta method: 8 · 0.5
    (8.0, 4.0)
    """
    if not measure.is_log:
        return estimate.value, estimate.standard_error
    value = round(math.exp(estimate.value), 12)
    return value, None if estimate.standard_error is None else value * estimate.standard_error


def best_inits(results: Results, name: str) -> set[str]:
    """Return the inits whose shown value is the best of a measure, several where these are equal."""
    measure = MEASURES[name]
    values = {init: shown(found[name], measure)[0] for init, found in results.items() if init != BASE}
    key = {"lowest": lambda v: v, "highest": lambda v: -v, "nearest 0": abs}[measure.best]
    if not values:
        return set()
    ordered = {init: round(key(value), measure.decimals) for init, value in values.items()}
    return {init for init, value in ordered.items() if value == min(ordered.values())}


def table(results: Results, *, other: bool = False) -> str:
    """Return the lines of a table: inits × measures, "value ±standard error", * at the best of a column.

    other: the measures of text in which no new word belongs, instead of all the rest.
    """
    names = [name for name, measure in MEASURES.items() if measure.other == other]
    names = [name for name in names if any(name in found for found in results.values())]
    columns = [["", *results]]
    for name in names:
        measure, best = MEASURES[name], best_inits(results, name)
        cells = [measure.title + " "]
        for init, found in results.items():
            cells.append(_cell(found.get(name), measure) + ("*" if init in best else " "))
        columns.append(cells)
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        first, *others = (cell for cell in row)
        cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cell(estimate: Estimate | None, measure: Measure) -> str:
    if estimate is None:
        return "–"
    value, error = shown(estimate, measure)
    text = f"{value:,.{measure.decimals}f}"
    return text if error is None else f"{text} ±{error:.{measure.decimals}f}"


def in_words(results: Results) -> str:
    """Return what the table means: its measures, what the best is, what the errors are of."""
    words = max((found["input_kl"].clusters for found in results.values()), default=0)
    bits = results[BASE]["bits_per_byte"].value
    readers, writers, cheapest = (
        _list(best_inits(results, name)) for name in ("input_kl", "output_log_ratio_abs", "bits_change")
    )
    return (
        f"base: the same model without the new words, {bits:.4f} bits per byte; its values mean that nothing "
        f"changed.\n±: one standard error over {words:,} words, whose contexts count as one observation each "
        f"(Δ bits/byte: over lines); *: best of a column.\nText after a new word is read most like before "
        f"with {readers}; new words are most nearly as likely as their old tokens were with {writers}; "
        f"held-out text costs least with {cheapest}."
    )


def _list(inits: set[str]) -> str:
    return " and ".join(sorted(inits))


def as_json(results: Results, *, left_out: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the JSON holds: every estimate with its standard error and n; logarithms stay logarithms.

    settings: how and of what it was measured, the sources' sha256 among them.
    """
    return {
        "format": FORMAT[0],
        "version": FORMAT[1],
        **settings,
        "measures": {
            name: {"meaning": measure.meaning, "best": measure.best, "natural_logarithm": measure.is_log}
            for name, measure in MEASURES.items()
        },
        "results": {
            init: {name: estimate.as_json() for name, estimate in found.items()}
            for init, found in results.items()
        },
        "left_out": dict(left_out),
    }


def draw_inits(figure: Any, results: Results, *, title: str) -> None:
    """Draw a panel a measure, a bar an init with its standard error; a line where the base is."""
    inits = [init for init in results if init != BASE]
    columns = 3
    rows = math.ceil(len(MEASURES) / columns)
    figure.set_size_inches(4.2 * columns, (0.9 + 0.22 * len(inits)) * rows)
    figure.set_layout_engine("constrained")
    panels = list(figure.subplots(rows, columns, sharey=True).flat)
    for axes, (name, measure) in zip(panels, MEASURES.items(), strict=False):
        values, errors = zip(*(shown(results[init][name], measure) for init in inits), strict=True)
        best = best_inits(results, name)
        colours = [BLUE if init in best else GREY for init in inits]
        axes.barh(inits, values, xerr=[error or 0 for error in errors], color=colours, height=0.7)
        if name in results[BASE]:
            axes.axvline(shown(results[BASE][name], measure)[0], color=RED, linewidth=1)
        if measure.is_log:
            axes.set_xscale("log")
        axes.set_title(f"{measure.title} ({measure.best} is best)", fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in panels[len(MEASURES) :]:
        axes.set_visible(False)
    panels[0].invert_yaxis()
    figure.suptitle(title, fontsize=10, parse_math=False)
