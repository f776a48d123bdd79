"""The picture of view_embeddings: rows in two dimensions, and histograms of their norms.

Reads a sample of rows; draws into a figure that it is given.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vocabkit.checkpoint.folder import Folder
from vocabkit.checkpoint.numbers import rows_as_float32
from vocabkit.errors import UserError
from vocabkit.look.plots import BLUE, GOLD, GREEN, GREY, PURPLE, RED
from vocabkit.text.languages import category_of
from vocabkit.text.unicode import first_foreign

SAMPLE = 1000  # rows of each group in the picture: more make one blot, and PCA slow

GROUPS = {"other": GREY, "other scripts": GREEN, "English": BLUE, "Vietnamese": RED, "new": PURPLE}
COLOURS = (BLUE, RED, GREEN, PURPLE, GOLD, "#444444")
NORM_COLOURS = {"tokens": BLUE, "new tokens": PURPLE, "padding": GREY}
# Where a label may stand beside its point, in points (1/72 inch), nearest first
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8))
Neighbours = list[tuple[int, float]]  # row and cosine, best first

Group = tuple[str, str, list[int]]  # name, colour, rows


def kinds_of_rows(opened: Folder) -> dict[str, list[int]]:
    """Return the rows of old tokens, of new ones, and of none; a kind without rows is left out."""
    old = [row for row in opened.tokenizer.tokens if row not in opened.new]
    kinds = {"tokens": old, "new tokens": sorted(opened.new), "padding": opened.padding}
    return {kind: rows for kind, rows in kinds.items() if rows}


def draw(figure: Any, opened: Folder, norms: dict[str, np.ndarray], near: dict[int, Neighbours]) -> None:
    """Draw two dimensions of given rows and their neighbours, or of a sample of all, and all norms."""
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (3, 2)})
    figure.subplots_adjust(left=0.05, right=0.98, bottom=0.08, top=0.9, wspace=0.14)
    figure.suptitle(opened.path.name, fontsize=14, parse_math=False)
    groups = _near_groups(opened, near) if near else _sample(opened, norms["input"])
    if not groups:
        raise UserError(f"{opened.path}: no row of input has a direction; run without --plot")
    rows = sorted({row for _, _, ids in groups for row in ids})
    points, shares = project(rows_as_float32(opened.matrices["input"], rows))
    place = dict(zip(rows, points, strict=True))
    for name, colour, ids in groups:
        spots = np.array([place[row] for row in ids])
        left.scatter(*spots.T, s=30 if near else 8, c=colour, alpha=0.9 if near else 0.55, lw=0, label=name)
    what = "given tokens and their nearest" if near else "a sample of the rows"
    left.set_title(f"input: {what}, directions only (PCA)")
    left.set(xlabel=f"first component, {shares[0]:.0%}", ylabel=f"second component, {shares[1]:.0%}")
    left.legend(loc="best", markerscale=1 if near else 3, framealpha=0.9)
    if near:
        left.margins(0.15)
        stars = np.array([place[row] for row in near]).T
        left.scatter(*stars, s=260, c=[colour for _, colour, _ in groups], marker="*", lw=0)
        _label(left, opened, groups, place)
    finite = np.concatenate([values[np.isfinite(values)] for values in norms.values()])
    edges = np.histogram_bin_edges(finite, bins=80)
    for name, values in norms.items():
        style = {"alpha": 0.6} if name == "input" else {"histtype": "step", "lw": 2}
        for kind, ids in kinds_of_rows(opened).items():
            label = f"{name}, {kind} ({len(ids):,})"
            right.hist(values[ids], edges, color=NORM_COLOURS[kind], label=label, **style)
    for axes in (left, right):
        axes.grid(alpha=0.25, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    right.set(title="norms of all rows", xlabel="Euclidean norm", ylabel="rows (log scale)", yscale="log")
    right.legend(loc="best")


def _near_groups(opened: Folder, near: dict[int, Neighbours]) -> list[Group]:
    """Return (name, colour, rows) for each given row: itself, then neighbours that are no other's."""
    groups, taken = [], set(near)
    for at, (row, found) in enumerate(near.items()):
        own = [other for other, _ in found if other not in taken]
        taken.update(own)
        groups.append((_drawable(opened, row), COLOURS[at % len(COLOURS)], [row, *own]))
    return groups


def _sample(opened: Folder, norms: np.ndarray) -> list[Group]:
    """Return (name, colour, rows) of up to SAMPLE rows of each language; the seed is fixed."""
    members: dict[str, list[int]] = {name: [] for name in GROUPS}
    for row, data in opened.tokenizer.token_bytes.items():
        text = data.decode("utf-8", "ignore")
        group = {"english": "English", "vietnamese": "Vietnamese"}.get(category_of(text), "other")
        group = "other scripts" if group == "other" and first_foreign(text) else group
        if np.isfinite(norms[row]) and norms[row] > 0:
            members["new" if row in opened.new else group].append(row)
    random = np.random.default_rng(0)
    drawn = {name: sorted(random.permutation(ids)[:SAMPLE].tolist()) for name, ids in members.items()}
    return [(f"{n} ({len(ids):,} of {len(members[n]):,})", GROUPS[n], ids) for n, ids in drawn.items() if ids]


def project(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 2) float32: unit rows on their two principal components, and the components' shares."""
    rows = np.nan_to_num(rows, posinf=0, neginf=0)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    rows = rows - rows.mean(axis=0)
    some = rows[:: -(-len(rows) // SAMPLE)]  # spread evenly: an SVD of 4,000 x 3,584 takes a minute
    _, sizes, components = np.linalg.svd(some, full_matrices=False)
    flat = np.zeros((2, rows.shape[1]), np.float32)  # one row alone spans no plane
    flat[: len(components)] = components[:2]
    shares = np.append(sizes**2, (0, 0))[:2] / max(float(np.sum(sizes**2)), 1e-30)
    return rows @ flat.T, shares


def _drawable(opened: Folder, row: int) -> str:
    """Return a token as a short label; its id if the font lacks a character of it, as it does Chinese."""
    from matplotlib.font_manager import findfont, get_font

    font, text = get_font(findfont("DejaVu Sans")), opened.text(row)
    known = all(font.get_char_index(ord(char)) for char in text)
    return text[:28] if known else f"id {row}"


def _label(axes: Any, opened: Folder, groups: Sequence[Group], place: dict[int, np.ndarray]) -> None:
    """Write each token beside its point where no other label stands, given tokens first; count the rest."""
    from matplotlib.transforms import Bbox

    renderer, left_out = axes.figure.canvas.get_renderer(), 0
    axes.autoscale_view()
    spots = axes.transData.transform(list(place.values()))
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    cases = [(rank, row, colour) for _, colour, ids in groups for rank, row in enumerate(ids)]
    for rank, row, colour in sorted(cases, key=lambda case: case[0]):
        reach = (7, 16, 27) if rank else (12, 22, 34)
        for dx, dy in ((x * far, y * far) for far in reach for x, y in SIDES):
            note = axes.annotate(
                _drawable(opened, row), place[row], (dx, dy), textcoords="offset points", color=colour,
                fontsize=10 if rank else 13, fontweight="normal" if rank else "bold", va="center",
                ha="left" if dx > 0 else "right" if dx < 0 else "center", parse_math=False,
            )  # fmt: skip
            box = note.get_window_extent(renderer)
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            note.remove()
        else:
            left_out += 1
    if left_out:
        axes.text(0.01, 0.01, f"not labelled, no room: {left_out}", transform=axes.transAxes, fontsize=9)
