"""Look at the rows of a checkpoint's vocabulary matrices: norms, changes since the base, nearest neighbours.

Reads a folder (and its base) with tokenizer.json, config.json and safetensors; prints; writes a PNG if asked.
A matrix is read in blocks: 500 MB of memory are enough, whatever the model's size.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.checkpoint import Tensor, read_checkpoint, rows_as_float32
from vocabkit.errors import UserError
from vocabkit.files import read_json_object, read_versioned, sha256_file
from vocabkit.keep import text_for_people
from vocabkit.text import category_of, first_foreign, nfc
from vocabkit.tokenizer_json import TokenizerJson, read_tokenizer_json
from vocabkit.verify import EDIT_FILE, EDIT_FORMAT, load_encoder
from vocabkit.vocab_tensors import VocabTensors, find_vocab_tensors

NEIGHBOURS = 10
SHOWN = 20  # changed or new rows that are spelled out; the others are counted
EXTREMES = 5  # shortest and longest rows that are named
BLOCK = 64 << 20  # bytes of float32 values held at a time
SAMPLE = 1000  # rows of each group in the picture: more make one blot, and PCA slow
# Okabe and Ito's colours, which people of any colour vision tell apart
BLUE, RED, GREEN, GREY, PURPLE, GOLD = "#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#CC79A7", "#B07D00"
GROUPS = {"other": GREY, "other scripts": GREEN, "English": BLUE, "Vietnamese": RED, "new": PURPLE}
COLOURS = (BLUE, RED, GREEN, PURPLE, GOLD, "#444444")
NORM_COLOURS = {"tokens": BLUE, "new tokens": PURPLE, "padding": GREY}
# Where a label may stand beside its point, in points (1/72 inch), nearest first
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8))
Neighbours = list[tuple[int, float]]  # row and cosine, best first
Change = tuple[int, float, float]  # row, norm of the difference / norm before, cosine


@dataclass(frozen=True)
class Opened:
    """A folder, its matrices by name (input; output if not tied), vocab_edit.json, ids the base lacks."""

    folder: Path
    tokenizer: TokenizerJson
    tensors: VocabTensors
    matrices: dict[str, Tensor]
    edit: dict[str, Any] | None
    new: set[int]

    @property
    def padding(self) -> list[int]:
        """Rows without a token."""
        return [row for row in range(self.tensors.rows) if row not in self.tokenizer.tokens]

    def text(self, row: int) -> str:
        """Return the token of a row as people read it, in quotes."""
        data = self.tokenizer.token_bytes.get(row)
        return "padding" if data is None else repr(text_for_people(data))


def open_folder(folder: Path) -> Opened:
    """Open a folder, read no row; UserError where tokenizer, vocab_edit.json and matrices disagree."""
    tokenizer = read_tokenizer_json(folder)
    tensors = find_vocab_tensors(read_checkpoint(folder), read_json_object(folder / "config.json"))
    highest, count = max(tokenizer.tokens), len(tokenizer.tokens)
    if highest >= tensors.rows:
        raise UserError(
            f"{tokenizer.path} has a token with id {highest:,}, the matrices of {folder} have "
            f"{tensors.rows:,} rows; the two belong to different models: download both again"
        )
    path, edit, new_to_old = folder / EDIT_FILE, None, []
    if path.is_file():
        edit = read_versioned(path, format=EDIT_FORMAT[0], version=EDIT_FORMAT[1])
        new_to_old = edit["new_to_old"]
        if len(new_to_old) != count:
            raise UserError(
                f"{path} maps {len(new_to_old):,} tokens, {tokenizer.path} has {count:,}; the two belong to "
                f"different folders: remove {path}"
            )
    matrices = {"input": tensors.embed[0]}
    if not tensors.tied:
        matrices["output"] = next(tensor for tensor in tensors.head if len(tensor.shape) == 2)
    new = {new for new, old in enumerate(new_to_old) if old is None}
    return Opened(folder, tokenizer, tensors, matrices, edit, new)


def view_embeddings(model: Path, *, base: Path | None, tokens: Sequence[str], plot: Path | None) -> None:
    """Print what the rows of a model look like; write the picture PLOT if it is given.

    Raises UserError if PLOT cannot be written, BASE has another vocabulary, or none of tokens is one.
    """
    figure = new_figure(plot) if plot else None
    opened = open_folder(model)
    given = find_tokens(opened, tokens) if tokens else []
    norms = {name: row_norms(tensor) for name, tensor in opened.matrices.items()}
    print_overview(opened, norms)
    if base:
        print_changes(opened, open_folder(base))
    near = {name: nearest(opened, name, norms[name], given) for name in opened.matrices} if given else {}
    for at, row in enumerate(given):
        print(f"\nnearest to {opened.text(row)} {row}")
        for name, found in near.items():
            print(f"{name:10}norm {norms[name][row]:.4g}{'' if found[at] else ': a row without a direction'}")
            for neighbour, cosine in found[at]:
                print(f"{cosine:>17.3f}  {neighbour:>6}  {opened.text(neighbour)}")
    if plot and figure:
        draw(figure, opened, norms, dict(zip(given, near["input"], strict=True)) if given else {})
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=130)
        with plot.open("xb") as file:
            file.write(picture.getvalue())
        print(f"\n{plot}: written")


def find_tokens(opened: Opened, texts: Sequence[str]) -> list[int]:
    """Return the ids of the texts that are one token, print how others are cut; UserError if none is one."""
    token_bytes, byte_ids = opened.tokenizer.token_bytes, opened.tokenizer.byte_ids()
    # Where two tokens stand for one byte, A and <0x41>, the later one wins: A
    by_bytes = {token_bytes[i]: i for i in sorted(token_bytes, key=lambda i: i not in byte_ids)}
    encoder, found, cut = None, [], []
    for text in dict.fromkeys(map(nfc, texts)):
        if text.encode("utf-8") in by_bytes:
            found.append(by_bytes[text.encode("utf-8")])
            continue
        encoder = encoder or load_encoder(opened.folder)
        ids = encoder.encode(text, add_special_tokens=False).ids
        pieces = ", ".join(f"{opened.text(token_id)} ({token_id})" for token_id in ids)
        cut.append(f"{text!r} is not one token: it is cut into {pieces or 'nothing'}")
    if not found:
        raise UserError(f"{'; '.join(cut)}; give --tokens a text that is one token, such as its first piece")
    for line in cut:
        print(line)
    return found


def float_blocks(tensor: Tensor) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, (block, D) float32 values) of all rows, BLOCK bytes at a time."""
    rows, step = tensor.shape[0], max(1, BLOCK // (4 * tensor.shape[1]))
    for first in range(0, rows, step):
        yield first, rows_as_float32(tensor, range(first, min(first + step, rows)))


def row_norms(tensor: Tensor) -> np.ndarray:
    """Return (V,) float32: the Euclidean norm of every row, NaN or inf where a row holds such a value."""
    return np.concatenate([np.sqrt(np.einsum("vd,vd->v", block, block)) for _, block in float_blocks(tensor)])


def nearest(opened: Opened, name: str, norms: np.ndarray, given: Sequence[int]) -> list[Neighbours]:
    """Return for each given row its NEIGHBOURS rows of the largest cosine, itself left out.

    Padding, zero rows and rows that are not finite are nobody's neighbours and have none.
    """
    tensor = opened.matrices[name]
    usable = np.isfinite(norms) & (norms > 0)
    lengths = np.where(usable, norms, 1)
    queries = np.concatenate([rows_as_float32(tensor, [row]) / lengths[row] for row in given])  # (Q, D)
    is_token = usable.copy()
    is_token[opened.padding] = False
    best = ids = np.empty((0, len(given)))
    for first, block in float_blocks(tensor):
        here = np.arange(first, first + len(block))
        with np.errstate(invalid="ignore"):  # NaN rows are put aside in the next line
            cosines = block @ queries.T / lengths[here, None]
        cosines[~is_token[here]] = -np.inf
        best = np.concatenate([best, cosines])
        ids = np.concatenate([ids, np.repeat(here[:, None], len(given), axis=1)])
        order = np.argsort(-best, axis=0, kind="stable")[: NEIGHBOURS + 1]  # the row itself is among them
        best, ids = (np.take_along_axis(values, order, axis=0) for values in (best, ids))
    found: list[Neighbours] = []
    for at, row in enumerate(given):
        pairs = zip(ids[:, at].astype(int).tolist(), best[:, at].tolist(), strict=True)
        found.append([(i, c) for i, c in pairs if i != row and np.isfinite(c) and usable[row]][:NEIGHBOURS])
    return found


def print_overview(opened: Opened, norms: dict[str, np.ndarray]) -> None:
    """Print rows, tokens, padding, and of every matrix the norms."""
    rows, padding = opened.tensors.rows, opened.padding
    counts = {name: np.count_nonzero(values[padding]) for name, values in norms.items()}
    zero = ", ".join(f"{n:,} not zero in {name}" for name, n in counts.items() if n) or "all zero"
    where = f" (in {padding[0]} to {padding[-1]}; {zero})" if padding else ""
    print(opened.folder)
    print(f"rows      {rows:,} = {len(opened.tokenizer.tokens):,} tokens + {len(padding):,} padding{where}")
    for name, tensor in opened.matrices.items():
        tied = "; tied: these rows are the output's too" if opened.tensors.tied else ""
        print(f"{name:10}{tensor.name}: {tensor.dtype}, D = {tensor.shape[1]:,}{tied}")
    print("\nnorms                 rows       min       1 %    median      mean      99 %       max")
    for name, values in norms.items():
        for kind, ids in kinds_of_rows(opened).items():
            chosen = values[ids][np.isfinite(values[ids])]
            if len(chosen):
                one, half, most = np.percentile(chosen, (1, 50, 99))
                shown = (chosen.min(), one, half, chosen.mean(dtype=np.float64), most, chosen.max())
                numbers = "".join(f"{value:>10.4g}" for value in shown)
                print(f"{name} {kind:{15 - len(name)}}{len(ids):>10,}{numbers}")
    for name, values in norms.items():
        finite = np.isfinite(values)
        by_norm = sorted((i for i in opened.tokenizer.tokens if finite[i]), key=values.item)
        for kind, ends in (("shortest", by_norm[:EXTREMES]), ("longest", by_norm[::-1][:EXTREMES])):
            print(f"{name} {kind}: " + ", ".join(f"{opened.text(i)} {i} ({values[i]:.4g})" for i in ends))
        if not finite.all():
            broken = np.flatnonzero(~finite).tolist()
            print(f"{name}: {len(broken):,} rows hold NaN or inf: {_some(opened, broken)}")


def kinds_of_rows(opened: Opened) -> dict[str, list[int]]:
    """Return the rows of old tokens, of new ones, and of none; a kind without rows is left out."""
    old = [row for row in opened.tokenizer.tokens if row not in opened.new]
    kinds = {"tokens": old, "new tokens": sorted(opened.new), "padding": opened.padding}
    return {kind: rows for kind, rows in kinds.items() if rows}


def _some(opened: Opened, rows: Sequence[int]) -> str:
    more = f", {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return ", ".join(f"{opened.text(row)} {row}" for row in rows[:SHOWN]) + more


def pair_rows(opened: Opened, base: Opened) -> tuple[list[tuple[int, int]], set[int]]:
    """Return the (row, row of the base) that hold the same token, and the rows that are new.

    An edited folder and its base: by vocab_edit.json. Two folders in which no id stands for two tokens: id by
    id, padding too. Any other two: UserError.
    """
    edit, mine, theirs = opened.edit, opened.tokenizer.tokens, base.tokenizer.tokens
    if edit and edit.get("base_tokenizer_sha256") == sha256_file(base.tokenizer.path):
        return [(new, old) for new, old in enumerate(edit["new_to_old"]) if old is not None], opened.new
    for row in mine.keys() & theirs.keys():
        if mine[row] != theirs[row]:
            raise UserError(
                f"row {row} is {opened.text(row)} in {opened.folder}, {base.text(row)} in {base.folder}: two "
                "vocabularies; compare them with -t compare_vocab"
            )
    common = range(min(opened.tensors.rows, base.tensors.rows))
    return [(row, row) for row in common if mine.get(row) == theirs.get(row)], mine.keys() - theirs.keys()


def print_changes(opened: Opened, base: Opened) -> None:
    """Print which rows differ from the base, the most changed first, and which are new."""
    pairs, new = pair_rows(opened, base)
    print(f"\nbase      {base.folder}: {len(pairs):,} rows have a row there, {len(new):,} are new")
    for name in dict.fromkeys((*opened.matrices, *base.matrices)):
        mine, theirs = (side.matrices.get(name, side.matrices["input"]) for side in (opened, base))
        if mine.shape[1:] != theirs.shape[1:]:
            raise UserError(
                f"{mine.name} of {opened.folder} has rows of {mine.shape[1]:,} values, {base.folder} of "
                f"{theirs.shape[1]:,}: models of two sizes; give the base of the same size"
            )
        changed = sorted(changed_rows(mine, theirs, pairs), key=lambda case: -case[1])
        print(f"{name:10}{len(changed):,} of {len(pairs):,} rows differ" + ", most first:" * bool(changed))
        for row, change, cosine in changed[:SHOWN]:
            print(f"{'':10}by {change:<6.1%} cosine {cosine:<7.4f} {row} {opened.text(row)}")
    if new:
        print(f"new       {_some(opened, sorted(new))}")


def changed_rows(mine: Tensor, theirs: Tensor, pairs: Sequence[tuple[int, int]]) -> Iterator[Change]:
    """Yield how a row differs from its pair, for the pairs whose values differ as float32."""
    step = max(1, BLOCK // (4 * mine.shape[1]))
    for first in range(0, len(pairs), step):
        ids = np.asarray(pairs[first : first + step])
        sides = []
        for tensor, rows in ((mine, ids[:, 0]), (theirs, ids[:, 1])):
            order = np.argsort(rows, kind="stable")  # rows are read in ascending order
            values = np.empty((len(rows), tensor.shape[1]), np.float32)
            values[order] = rows_as_float32(tensor, rows[order].tolist())
            sides.append(values)
        for at in np.flatnonzero((sides[0].view(np.uint32) != sides[1].view(np.uint32)).any(axis=1)):
            now, old = (side[at].astype(np.float64) for side in sides)
            product = np.linalg.norm(old) * np.linalg.norm(now)
            change = np.linalg.norm(now - old) / np.linalg.norm(old) if old.any() else np.inf
            yield int(ids[at, 0]), float(change), float(now @ old / product) if product else 0.0


def new_figure(plot: Path) -> Any:
    """Return an empty figure; UserError, before any long work, if PLOT cannot be written."""
    if plot.suffix.lower() != ".png":
        raise UserError(f"--plot {plot} is no PNG; give a name that ends in .png")
    if plot.exists() or plot.is_symlink():
        raise UserError(f"{plot} already exists; choose another file with --plot, or remove it: rm {plot}")
    if not plot.parent.is_dir():
        raise UserError(f"{plot.parent} is not a folder; make it first: mkdir -p {plot.parent}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--plot needs matplotlib; install it: python3 -m pip install matplotlib") from None
    return FigureCanvasAgg(Figure(figsize=(15, 7.5))).figure


def draw(figure: Any, opened: Opened, norms: dict[str, np.ndarray], near: dict[int, Neighbours]) -> None:
    """Draw two dimensions of given rows and their neighbours, or of a sample of all, and all norms."""
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (3, 2)})
    figure.subplots_adjust(left=0.05, right=0.98, bottom=0.08, top=0.9, wspace=0.14)
    figure.suptitle(opened.folder.name, fontsize=14, parse_math=False)
    groups = _near_groups(opened, near) if near else _sample(opened, norms["input"])
    if not groups:
        raise UserError(f"{opened.folder}: no row of input has a direction; run without --plot")
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


def _near_groups(opened: Opened, near: dict[int, Neighbours]) -> list[tuple[str, str, list[int]]]:
    """Return (name, colour, rows) for each given row: itself, then neighbours that are no other's."""
    groups, taken = [], set(near)
    for at, (row, found) in enumerate(near.items()):
        own = [other for other, _ in found if other not in taken]
        taken.update(own)
        groups.append((_drawable(opened, row), COLOURS[at % len(COLOURS)], [row, *own]))
    return groups


def _sample(opened: Opened, norms: np.ndarray) -> list[tuple[str, str, list[int]]]:
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


def _drawable(opened: Opened, row: int) -> str:
    """Return a token as a short label; its id if the font lacks a character of it, as it does Chinese."""
    from matplotlib.font_manager import findfont, get_font

    font, text = get_font(findfont("DejaVu Sans")), opened.text(row)
    known = all(font.get_char_index(ord(char)) for char in text)
    return text[:28] if known else f"id {row}"


def _label(axes: Any, opened: Opened, groups: Sequence[Any], place: dict[int, np.ndarray]) -> None:
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
