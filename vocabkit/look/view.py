"""Look at the rows of a checkpoint's vocabulary matrices: norms, changes since the base, nearest neighbours.

Reads a folder (and its base) with tokenizer.json, config.json and safetensors; prints; writes a PNG if asked.
A matrix is read in blocks: 500 MB of memory are enough, whatever the model's size.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vocabkit.checkpoint.folder import Folder, open_folder
from vocabkit.checkpoint.numbers import rows_as_float32
from vocabkit.checkpoint.shards import Tensor
from vocabkit.errors import UserError
from vocabkit.files import sha256_file
from vocabkit.look.picture import Neighbours, draw, kinds_of_rows
from vocabkit.look.plots import new_figure, write_figure
from vocabkit.rows.formulas import nearest
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.encoder import load_encoder

NEIGHBOURS = 10
SHOWN = 20  # changed or new rows that are spelled out; the others are counted
EXTREMES = 5  # shortest and longest rows that are named
BLOCK = 64 << 20  # bytes of float32 values held at a time

Change = tuple[int, float, float]  # row, norm of the difference / norm before, cosine


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
    near = {name: neighbours(opened, name, norms[name], given) for name in opened.matrices} if given else {}
    for at, row in enumerate(given):
        print(f"\nnearest to {opened.text(row)} {row}")
        for name, found in near.items():
            print(f"{name:10}norm {norms[name][row]:.4g}{'' if found[at] else ': a row without a direction'}")
            for neighbour, cosine in found[at]:
                print(f"{cosine:>17.3f}  {neighbour:>6}  {opened.text(neighbour)}")
    if plot and figure:
        draw(figure, opened, norms, dict(zip(given, near["input"], strict=True)) if given else {})
        print()
        write_figure(figure, plot)


def find_tokens(opened: Folder, texts: Sequence[str]) -> list[int]:
    """Return the ids of the texts that are one token, print how others are cut; UserError if none is one."""
    token_bytes, byte_ids = opened.tokenizer.token_bytes, opened.tokenizer.byte_ids()
    # Where two tokens stand for one byte, A and <0x41>, the later one wins: A
    by_bytes = {token_bytes[i]: i for i in sorted(token_bytes, key=lambda i: i not in byte_ids)}
    encoder, found, cut = None, [], []
    for text in dict.fromkeys(map(nfc, texts)):
        if text.encode("utf-8") in by_bytes:
            found.append(by_bytes[text.encode("utf-8")])
            continue
        encoder = encoder or load_encoder(opened.path)
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


def neighbours(opened: Folder, name: str, norms: np.ndarray, given: Sequence[int]) -> list[Neighbours]:
    """Return for each given row its NEIGHBOURS rows of the largest cosine, itself left out.

    Padding, zero rows and rows that are not finite are nobody's neighbours and have none.
    """
    tensor = opened.matrices[name]
    usable = np.isfinite(norms) & (norms > 0)
    is_token = usable.copy()
    is_token[opened.padding] = False
    queries = np.concatenate([rows_as_float32(tensor, [row]) for row in given])  # (Q, D)
    queries[~usable[list(given)]] = 0
    blocks = (
        (first + (inside := np.flatnonzero(is_token[first : first + len(block)])), block[inside])
        for first, block in float_blocks(tensor)
    )
    ids, cosines = nearest(queries, blocks, count=NEIGHBOURS + 1)  # the row itself is among them
    found: list[Neighbours] = []
    for row, several, near in zip(given, ids.tolist(), cosines.tolist(), strict=True):
        pairs = [(i, cosine) for i, cosine in zip(several, near, strict=True) if i != row and usable[row]]
        found.append(pairs[:NEIGHBOURS])
    return found


def print_overview(opened: Folder, norms: dict[str, np.ndarray]) -> None:
    """Print rows, tokens, padding, and of every matrix the norms."""
    rows, padding = opened.tensors.rows, opened.padding
    counts = {name: np.count_nonzero(values[padding]) for name, values in norms.items()}
    zero = ", ".join(f"{n:,} not zero in {name}" for name, n in counts.items() if n) or "all zero"
    where = f" (in {padding[0]} to {padding[-1]}; {zero})" if padding else ""
    print(opened.path)
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


def _some(opened: Folder, rows: Sequence[int]) -> str:
    more = f", {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return ", ".join(f"{opened.text(row)} {row}" for row in rows[:SHOWN]) + more


def pair_rows(opened: Folder, base: Folder) -> tuple[list[tuple[int, int]], set[int]]:
    """Return the (row, row of the base) that hold the same token, and the rows that are new.

    An edited folder and its base: by vocab_edit.json. Two folders in which no id stands for two tokens: id by
    id, padding too. Any other two: UserError.
    """
    record, mine, theirs = opened.record, opened.tokenizer.tokens, base.tokenizer.tokens
    if record and record.base_tokenizer_sha256 == sha256_file(base.tokenizer.path):
        return [(new, old) for new, old in enumerate(record.new_to_old) if old is not None], opened.new
    for row in mine.keys() & theirs.keys():
        if mine[row] != theirs[row]:
            raise UserError(
                f"row {row} is {opened.text(row)} in {opened.path}, {base.text(row)} in {base.path}: two "
                "vocabularies; compare them with -t compare_vocab"
            )
    common = range(min(opened.tensors.rows, base.tensors.rows))
    return [(row, row) for row in common if mine.get(row) == theirs.get(row)], mine.keys() - theirs.keys()


def print_changes(opened: Folder, base: Folder) -> None:
    """Print which rows differ from the base, the most changed first, and which are new."""
    pairs, new = pair_rows(opened, base)
    print(f"\nbase      {base.path}: {len(pairs):,} rows have a row there, {len(new):,} are new")
    for name in dict.fromkeys((*opened.matrices, *base.matrices)):
        mine, theirs = (side.matrices.get(name, side.matrices["input"]) for side in (opened, base))
        if mine.shape[1:] != theirs.shape[1:]:
            raise UserError(
                f"{mine.name} of {opened.path} has rows of {mine.shape[1]:,} values, {base.path} of "
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
