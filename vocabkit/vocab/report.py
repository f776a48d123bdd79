"""The choice of a vocabulary as a page for people: report.html, one file, no network.

Reads report_page.html, .css and .js beside this file (the page's three parts) and data/model_sizes.json;
writes the one path it is given. All numbers are computed here and go into the page as JSON; the page's script
only draws them, sorts the tokens and searches among them.
"""

import html
import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, astuple, dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from vocabkit.files import DATA, read_versioned
from vocabkit.text.unicode import script_of
from vocabkit.vocab.plan import ROWS_MULTIPLE, round_up
from vocabkit.vocab.rules import Decision

PART_OF_KEPT = "part of a kept token"

BYTES, COMMON = "bytes", "Common"

CURVE_POINTS, STRIP_COLUMNS, LARGEST_REMOVED = 400, 240, 30
# text_for_people() writes only bytes from 80 up this way: lower ones are characters.
_BROKEN = re.compile("<0x[89A-F][0-9A-F]>")


@dataclass(frozen=True)
class ModelShape:
    """What of a model's config.json and weights decides how much its vocabulary weighs."""

    name: str
    hidden_size: int
    rows: int
    matrices: int  # 1: the input embeddings are the output head as well (tied)
    parameters: int


@dataclass(frozen=True)
class ModelFamily:
    """Models whose savings are shown; tokens: how many a tokenizer may have that their rows belong to."""

    name: str
    tokens: range
    shapes: tuple[ModelShape, ...]


def read_family() -> ModelFamily:
    """Read the sizes of a family of models (data/README.md says where they come from)."""
    data = read_versioned(DATA / "model_sizes.json", format="vocabkit/model-sizes", version=1)
    tokens = range(data["tokens"]["least"], data["tokens"]["most"] + 1)
    return ModelFamily(data["family"], tokens, tuple(ModelShape(**model) for model in data["models"]))


BYTES_PER_VALUE = 2  # bfloat16


@dataclass(frozen=True)
class Token:
    """One token with what became of it after closure."""

    id: int
    text: str
    count: int
    stays: bool
    category: str
    script: str
    reason: str


@dataclass(frozen=True)
class CurvePoint:
    """The `size` most counted tokens cover this share of all counts; the last is counted `count` times."""

    size: int
    share: float
    count: int


@dataclass(frozen=True)
class Group:
    """Tokens that have a name in common: how many stay and go, and how often they were counted."""

    name: str
    kept: int
    removed: int
    kept_count: int
    removed_count: int


@dataclass(frozen=True)
class Size:
    """Bytes of a model's vocabulary matrices; share: saved bytes of the whole model's, None if not known."""

    name: str
    matrices: int
    old_rows: int
    new_rows: int
    old_bytes: int
    new_bytes: int
    share: float | None

    @property
    def saved_bytes(self) -> int:
        return self.old_bytes - self.new_bytes


def script_of_token(text: str) -> str:
    """Return the script of a token's text (as Decision holds it): its first that is not Common or Inherited.

    "Common" where it has none, "bytes" where some of it is no whole character.

    >>> [script_of_token(text) for text in (" Việt", "x字", "字x", " 123", " ti<0xE1><0xBA>")]
    ['Latin', 'Latin', 'Han', 'Common', 'bytes']
    """
    if text.isascii():
        if "<0x" in text and _BROKEN.search(text):
            return BYTES
        return "Latin" if any(char.isalpha() for char in text) else COMMON
    if _BROKEN.search(text):
        return BYTES
    names = (script_of(char) for char in text)
    return next((name for name in names if name not in (COMMON, "Inherited")), COMMON)


def after_closure(decisions: Iterable[Decision], closed: AbstractSet[int]) -> list[Token]:
    """Return every token with its end, by id: those in closed stay, whatever the rules said of them."""
    return [
        Token(
            id=d.id,
            text=d.text,
            count=d.count,
            stays=d.id in closed,
            category=d.category,
            script=script_of_token(d.text),
            reason=d.reason if d.keep or d.id not in closed else PART_OF_KEPT,
        )
        for d in sorted(decisions, key=lambda decision: decision.id)
    ]


def coverage_curve(counts: Iterable[int], *, points: int = CURVE_POINTS) -> list[CurvePoint]:
    """Return about `points` points of the best coverage that a vocabulary of each size can have.

    Half of the sizes are evenly apart, half by a constant factor, so that the curve is smooth on a linear and
    on a logarithmic axis; 1 and all are among them. Empty where nothing was counted.

    >>> [(point.size, point.share, point.count) for point in coverage_curve([2, 0, 7, 1])]
    [(1, 0.7, 7), (2, 0.9, 2), (3, 1.0, 1), (4, 1.0, 0)]
    """
    ordered = sorted(counts, reverse=True)
    sums = list(accumulate(ordered))
    if not sums or not sums[-1]:
        return []
    last, half = len(ordered), max(2, points // 2)
    steps = range(half)
    sizes = {1 + round((last - 1) * step / (half - 1)) for step in steps}
    sizes |= {round(last ** (step / (half - 1))) for step in steps}
    return [CurvePoint(size, sums[size - 1] / sums[-1], ordered[size - 1]) for size in sorted(sizes)]


def best_share(counts: Iterable[int], size: int) -> float | None:
    """Return the share of all counts that the `size` most counted tokens have, None where nothing was."""
    ordered = sorted(counts, reverse=True)
    total = sum(ordered)
    return sum(ordered[:size]) / total if total else None


def group(tokens: Iterable[Token], name_of: Callable[[Token], str]) -> list[Group]:
    """Return the tokens counted by name, the name with most tokens first."""
    sums: dict[str, list[int]] = {}
    for token in tokens:
        numbers = sums.setdefault(name_of(token), [0, 0, 0, 0])
        at = 0 if token.stays else 1
        numbers[at] += 1
        numbers[at + 2] += token.count
    groups = [Group(name, *numbers) for name, numbers in sums.items()]
    return sorted(groups, key=lambda g: (-g.kept - g.removed, g.name))


def strip(stays: Sequence[bool], *, columns: int = STRIP_COLUMNS) -> list[float]:
    """Return the kept share of each of `columns` equal stretches of a sequence.

    >>> strip([True, True, False, True, False, False], columns=3)
    [1.0, 0.5, 0.0]
    """
    columns = min(columns, len(stays))
    edges = [len(stays) * column // columns for column in range(columns + 1)] if columns else []
    stretches = (stays[start:end] for start, end in zip(edges, edges[1:], strict=False))
    return [sum(stretch) / len(stretch) for stretch in stretches]


def largest_removed(tokens: Iterable[Token], limit: int = LARGEST_REMOVED) -> list[Token]:
    """Return the removed tokens that were counted most often, those never counted left out."""
    gone = (token for token in tokens if not token.stays and token.count)
    return sorted(gone, key=lambda token: (-token.count, token.id))[:limit]


def sizes(n_tokens: int, n_kept: int, family: ModelFamily) -> list[Size]:
    """Return what the models of a family save when n_kept of the n_tokens of a tokenizer stay, in bfloat16.

    A tokenizer with another number of tokens than theirs is reckoned with these models' hidden sizes and
    matrices, and with its own tokens as rows; the share of the whole model is then not known.

    >>> tiny = ModelFamily("Tiny", range(990, 1001), (ModelShape("1K", 8, 1024, 1, 10_000),))
    >>> [(size.new_rows, size.saved_bytes, size.share) for size in sizes(1000, 500, tiny)]
    [(512, 8192, 0.4096)]
    """
    ours = n_tokens in family.tokens
    new_rows = round_up(n_kept, ROWS_MULTIPLE)
    found = []
    for shape in family.shapes:
        old_rows = shape.rows if ours else round_up(n_tokens, ROWS_MULTIPLE)
        old, new = (
            shape.matrices * rows * shape.hidden_size * BYTES_PER_VALUE for rows in (old_rows, new_rows)
        )
        share = (old - new) / (shape.parameters * BYTES_PER_VALUE) if ours else None
        found.append(Size(shape.name, shape.matrices, old_rows, new_rows, old, new, share))
    return found


def compact(tokens: Sequence[Token]) -> dict[str, Any]:
    """Return the tokens as columns: ids (None where they are 0, 1, 2, …), texts, counts, kinds.

    A kind is one combination of (stays, category, script, reason): kinds holds its number for each token,
    kind_names what the numbers mean. Some hundred combinations stand for a quarter of a million tokens.
    """
    names: dict[tuple[int, str, str, str], int] = {}
    kinds = [
        names.setdefault((int(token.stays), token.category, token.script, token.reason), len(names))
        for token in tokens
    ]
    ids = [token.id for token in tokens]
    return {
        "ids": None if ids == list(range(len(ids))) else ids,
        "texts": [token.text for token in tokens],
        "counts": [token.count for token in tokens],
        "kinds": kinds,
        "kind_names": list(names),
    }


def page_data(
    tokens: Sequence[Token], summary: Mapping[str, Any], *, title: str, command: str
) -> dict[str, Any]:
    """Return all that the page shows, as JSON values; shares are None where nothing was counted."""
    counts = [token.count for token in tokens]
    kept = [token for token in tokens if token.stays]
    counted, kept_counted = sum(counts), sum(token.count for token in kept)
    curve, family = coverage_curve(counts), read_family()
    return {
        "title": title,
        "command": command,
        "facts": facts(summary),
        "tokens": len(tokens),
        "kept": len(kept),
        "by_closure": sum(token.reason == PART_OF_KEPT for token in kept),
        "counted": counted,
        "kept_counted": kept_counted,
        "best_share": best_share(counts, len(kept)),
        "curve": [[point.size, round(point.share, 9), point.count] for point in curve],
        "strip": [round(share, 3) for share in strip([token.stays for token in tokens])],
        "by_script": [astuple(g) for g in group(tokens, lambda token: token.script)],
        "by_category": [astuple(g) for g in group(tokens, lambda token: token.category)],
        "by_reason": [astuple(g) for g in group(tokens, lambda token: token.reason)],
        "largest_removed": [astuple(token) for token in largest_removed(tokens)],
        "family": family.name,
        "sizes": [{**asdict(s), "saved_bytes": s.saved_bytes} for s in sizes(len(tokens), len(kept), family)],
        "columns": compact(tokens),
    }


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines below the headline, (name, value): thresholds and origin, as far as they are known."""
    lines = []
    names = {
        "documents": "Documents counted",
        "min_count": "Minimum count",
        "ascii_count": "Minimum count of ASCII",
        "sure_count": "Kept for sure from",
        "target_size": "Target size",
    }
    for key, name in names.items():
        value = summary.get(key)
        if isinstance(value, int | float):
            lines.append((name, f"{value:,.10g}"))
    if summary.get("scripts"):
        lines.append(("Scripts allowed", ", ".join(map(str, summary["scripts"]))))
    for key, name in (("fingerprint", "Tokenizer fingerprint"), ("counts_sha256", "SHA-256 of the counts")):
        if summary.get(key):
            lines.append((name, f"{str(summary[key])[:12]}…"))
    return [*lines, ("Made", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"))]


def json_for_script(value: Any) -> str:
    """Return value as JSON that may stand inside an HTML script element whatever its strings hold.

    >>> json_for_script(["</script>", "é"])
    '["\\\\u003c/script>","é"]'
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def write_html_report(
    path: Path,
    *,
    decisions: Sequence[Decision],
    closed: AbstractSet[int],
    summary: Mapping[str, Any],
    title: str,
    command: str,
) -> None:
    """Write a page that shows which tokens of a tokenizer stay, which go, and what that means.

    decisions: one for each token, in any order. closed: the ids that stay after closure, all kept ones among
    them; a token that is there for the sake of others only stays with the reason PART_OF_KEPT. summary: as
    lists.write_lists() returns it. title: the model or tokenizer; command: what made the lists. Overwrites
    path.
    """
    tokens = after_closure(decisions, closed)
    parts = {
        name: Path(__file__).with_name(f"report_page.{name}").read_text(encoding="utf-8")
        for name in ("html", "css", "js")
    }
    page = string.Template(parts["html"]).substitute(
        title=html.escape(title),
        css=parts["css"],
        js=parts["js"],
        data=json_for_script(page_data(tokens, summary, title=title, command=command)),
    )
    # A path or an argument that is not UTF-8 holds lone surrogates, which no UTF-8 file can; written as
    # \udc80 they are the JSON escape of themselves.
    path.write_bytes(page.encode("utf-8", "backslashreplace"))
