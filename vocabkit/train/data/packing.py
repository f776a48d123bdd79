"""Documents to rows of at most max_length tokens, and rows to batches in which documents do not see each
other.

    none      a document a row
    concat    one after the other, in their order, cut where a row is full
    best_fit  whole documents, each into the fullest row that still has room (best-fit decreasing,
              arXiv 2404.10830)
    similar   as concat, along a path from neighbour to neighbour by meaning, so that one row holds related
              documents, each document once (arXiv 2310.10638)

Only documents longer than a row are cut by none and best_fit. No token is lost: what follows a cut begins
with the token before it, which is then read and not learned again, so that every label is learned exactly
once.

Reads and writes no file. numpy; pyarrow, datasets, scikit-learn and torch are imported where they are needed.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from vocabkit.corpus.files import print_note
from vocabkit.corpus.streams import Notes
from vocabkit.errors import UserError
from vocabkit.train.data.samples import IGNORED

BLOCK_TOKENS = 1 << 24  # packed at a time: rows hold documents of one block; about 1 GB while it is made
BUFFER = 10_000  # documents among which neighbours are looked for: the search is quadratic
NEIGHBOURS = 10
Piece = tuple[int, int]  # [start, end) in the tokens of all documents


@dataclass(frozen=True)
class Documents:
    """The tokens of all documents in one array; document i is [starts[i], starts[i + 1])."""

    ids: np.ndarray  # (tokens,) int32
    labels: np.ndarray  # (tokens,) int32
    starts: np.ndarray  # (documents + 1,) int64
    num_bytes: np.ndarray  # (documents,) int64

    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)


def pack(
    dataset: Any,
    *,
    how: str,
    max_length: int,
    seed: int = 0,
    notes: Notes = print_note,
) -> Any:
    """Return a datasets.Dataset of rows: input_ids, labels, position_ids, seq_lengths, num_bytes.

    dataset: input_ids, labels and num_bytes, a document a row (tokenize.load_dataset). The first label of
    each piece is -100: nothing before it predicts it. position_ids restart at 0 with each piece, seq_lengths
    are the pieces' lengths. num_bytes of a document that is cut goes to its pieces by their number of labels.
    Rows without a label are left out. The order of rows is random but for none; seed decides it.
    """
    if max_length < 2:
        raise UserError(
            f"--model_max_length {max_length}: expected at least 2, a token and the one it predicts"
        )
    import datasets
    import pyarrow as pa

    random = np.random.default_rng(seed)
    tables = []
    n_documents = n_rows = cuts = 0
    for documents in _blocks(dataset):
        learned = _learned(documents)
        rows = _rows(documents, how=how, max_length=max_length, random=random)
        trained = [row for row in rows if any(learned[end] > learned[start + 1] for start, end in row)]
        n_documents += len(documents.num_bytes)
        n_rows += len(rows)
        ends = set(documents.starts.tolist())
        cuts += sum(end not in ends for row in trained for _, end in row)
        if trained:
            tables.append(_table(documents, trained, learned))
    if not tables:
        raise UserError("no row has a token to learn from; raise --model_max_length, or give other data")
    packed = datasets.Dataset(pa.concat_tables(tables))
    if n_rows > len(packed):
        notes(f"{n_rows - len(packed):,} of {n_rows:,} rows hold no token to learn and are left out")
    notes(
        f"packing {how}: {n_documents:,} documents in {len(packed):,} rows of {max_length:,} tokens, "
        f"{fill_rate(packed, max_length):.1%} full, {cuts / n_documents:.2f} cuts per document"
    )
    return packed if how == "none" else packed.select(random.permutation(len(packed)))


def _rows(
    documents: Documents, *, how: str, max_length: int, random: np.random.Generator
) -> list[list[Piece]]:
    order: Iterable[int] = range(len(documents.num_bytes))
    if how in ("concat", "similar"):
        order = similar_order(documents, random) if how == "similar" else order
        return _one_after_the_other(documents, order, max_length)
    pieces = [piece for at in order for piece in _cut(documents, at, max_length)]
    return [[piece] for piece in pieces] if how == "none" else _best_fit(pieces, max_length)


def fill_rate(packed: Any, max_length: int) -> float:
    """Return the share of a row of max_length tokens that is not padding, over all rows."""
    return sum(map(sum, packed["seq_lengths"])) / (len(packed) * max_length)


def _blocks(dataset: Any) -> Iterator[Documents]:
    """The documents in blocks of BLOCK_TOKENS and more, without a Python object per token."""
    import pyarrow as pa
    import pyarrow.compute as pc

    waiting, size = [], 0
    for table in dataset.with_format("arrow").iter(1000):
        waiting.append(table.select(["input_ids", "labels", "num_bytes"]))
        size += pc.sum(pc.list_value_length(table.column("input_ids"))).as_py()
        if size >= BLOCK_TOKENS:
            yield _documents(pa.concat_tables(waiting))
            waiting, size = [], 0
    if waiting:
        yield _documents(pa.concat_tables(waiting))


def _documents(table: Any) -> Documents:
    flat = {name: table.column(name).combine_chunks() for name in table.column_names}
    ids, labels = (flat[name].flatten().to_numpy(zero_copy_only=False) for name in ("input_ids", "labels"))
    offsets = flat["input_ids"].offsets.to_numpy().astype(np.int64)
    return Documents(
        ids.astype(np.int32), labels.astype(np.int32), offsets - offsets[0], flat["num_bytes"].to_numpy()
    )


def _learned(documents: Documents) -> np.ndarray:
    """(tokens + 1,): how many labels there are before each token, but for the first token of a document."""
    counted = documents.labels != IGNORED
    counted[documents.starts[:-1][documents.lengths() > 0]] = False
    return np.concatenate([[0], np.cumsum(counted)])


def _cut(documents: Documents, at: int, max_length: int) -> list[Piece]:
    """A document in pieces of max_length, each beginning with the last token of the one before."""
    start, end = map(int, documents.starts[at : at + 2])
    pieces = []
    while start < end:
        pieces.append((start, min(start + max_length, end)))
        if pieces[-1][1] == end:
            break
        start = pieces[-1][1] - 1
    return pieces


def _best_fit(pieces: Sequence[Piece], max_length: int) -> list[list[Piece]]:
    """Longest first, each into the row with the least room that is enough: within 22 % of the fewest rows."""
    rows: list[list[Piece]] = []
    with_room: dict[int, list[int]] = {}  # room → rows
    rooms: list[int] = []  # the keys of with_room, sorted
    for piece in sorted(pieces, key=lambda piece: (piece[0] - piece[1], piece)):
        length = piece[1] - piece[0]
        at = bisect_left(rooms, length)
        if at == len(rooms):
            rows.append([piece])
            row, room = len(rows) - 1, max_length - length
        else:
            found = rooms[at]
            row = with_room[found].pop()
            if not with_room[found]:
                del with_room[found], rooms[at]
            rows[row].append(piece)
            room = found - length
        if room:
            if room not in with_room:
                insort(rooms, room)
            with_room.setdefault(room, []).append(row)
    return rows


def _one_after_the_other(documents: Documents, order: Iterable[int], max_length: int) -> list[list[Piece]]:
    """Rows filled in the order of documents; where one is full, the document goes on in the next."""
    rows: list[list[Piece]] = [[]]
    room = max_length
    for at in order:
        start, end = map(int, documents.starts[at : at + 2])
        while start < end:
            if room < 2 and end - start > room:  # a token alone is neither learned nor predicts one
                rows.append([])
                room = max_length
            stop = min(start + room, end)
            rows[-1].append((start, stop))
            room -= stop - start
            if stop == end:
                break
            start = stop - 1
    return [row for row in rows if row]


def similar_order(documents: Documents, random: np.random.Generator) -> list[int]:
    """Return the documents in an order in which neighbours are alike, each once, a buffer after the other.

    Alike: cosine of TF-IDF over token ids. The path starts at a random document, goes to the nearest
    neighbour it has not been at, or else on to the next one of a random order.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.neighbors import NearestNeighbors

    everything = random.permutation(len(documents.lengths()))
    path: list[int] = []
    for first in range(0, len(everything), BUFFER):
        buffer = everything[first : first + BUFFER]
        parts = [documents.ids[documents.starts[at] : documents.starts[at + 1]] for at in buffer]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        ids = np.concatenate(parts)
        counts = csr_matrix((np.ones(len(ids), np.float32), ids, offsets), (len(parts), int(ids.max()) + 1))
        counts.sum_duplicates()
        vectors = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
        search = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(parts)), metric="cosine", n_jobs=1)
        nearest = search.fit(vectors).kneighbors(vectors, return_distance=False)
        path += [int(buffer[at]) for at in _walk(nearest)]
    return path


def _walk(nearest: np.ndarray) -> Iterable[int]:
    """Visit 0 … n - 1 once each; nearest: (n, k), the neighbours of each from near to far."""
    visited = np.zeros(len(nearest), bool)
    for start in range(len(nearest)):
        at: int | None = start
        while at is not None and not visited[at]:
            visited[at] = True
            yield at
            at = next((int(other) for other in nearest[at] if not visited[other]), None)


def _table(documents: Documents, rows: Sequence[Sequence[Piece]], learned: np.ndarray) -> Any:
    import pyarrow as pa

    starts, ends = np.array([piece for row in rows for piece in row], np.int64).T
    lengths = ends - starts
    per_row = np.cumsum([0, *map(len, rows)])  # pieces before each row
    before = np.concatenate([[0], np.cumsum(lengths)])  # tokens before each piece
    positions = np.arange(before[-1]) - np.repeat(before[:-1], lengths)
    places = np.repeat(starts, lengths) + positions
    labels = documents.labels[places]
    labels[before[:-1]] = IGNORED
    sizes = _bytes_of_pieces(documents, starts, ends, learned)

    def lists(values: np.ndarray, offsets: np.ndarray) -> pa.Array:
        return pa.LargeListArray.from_arrays(offsets.astype(np.int64), pa.array(values.astype(np.int32)))

    tokens = before[per_row]
    columns = {
        "input_ids": lists(documents.ids[places], tokens),
        "labels": lists(labels, tokens),
        "position_ids": lists(positions, tokens),
        "seq_lengths": lists(lengths, per_row),
        "num_bytes": pa.array(np.add.reduceat(sizes, per_row[:-1])),
    }
    return pa.table(columns)


def _bytes_of_pieces(
    documents: Documents, starts: np.ndarray, ends: np.ndarray, learned: np.ndarray
) -> np.ndarray:
    """(pieces,): the bytes of each piece's document in proportion to labels; whole over all its pieces."""
    owner = np.searchsorted(documents.starts, starts, side="right") - 1
    first = learned[documents.starts[owner]]
    of_all = np.maximum(learned[documents.starts[owner + 1]] - first, 1)
    size = documents.num_bytes[owner]
    until, since = learned[ends] - first, learned[starts + 1] - first
    return size * until // of_all - size * since // of_all


class Collator:
    """Rows of pack() → tensors of a batch, without an attention mask.

    transformers keeps the documents of a row apart where position_ids restart, if it is given no attention
    mask, not even one of ones, and the model runs with use_cache=False. Padding is a document of its own
    then, at the end of a row, and has no labels. cross_document: positions run on, documents see what is
    before them in their row.

    flatten: all rows one after the other in a batch of one, without padding, with the cu_seq_lens that
    flash-attention's varlen kernels take. For these alone: sdpa's mask grows with the square of a row. They
    need it: transformers gives flash-attention no mask, and tells documents by their position_ids only where
    a batch is one row; in a batch of several, documents of a row would see each other.
    """

    def __init__(self, pad_token_id: int, cross_document: bool = False, *, flatten: bool = False) -> None:
        self.pad_token_id = pad_token_id
        self.cross_document = cross_document
        self.flatten = flatten

    def in_rows(self) -> "Collator":
        """Return the same without flatten, right for any attention where a row is one document."""
        return Collator(self.pad_token_id, self.cross_document)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        import torch

        lengths = [len(row["input_ids"]) for row in rows]
        batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
        for row, length in zip(rows, lengths, strict=True):
            padding = 0 if self.flatten else max(lengths) - length
            batch["input_ids"].append([*row["input_ids"], *[self.pad_token_id] * padding])
            batch["labels"].append([*row["labels"], *[IGNORED] * padding])
            running = range(length + padding)
            positions = running if self.cross_document else [*row["position_ids"], *range(padding)]
            batch["position_ids"].append(list(positions))
        if not self.flatten:
            return {name: torch.tensor(values) for name, values in batch.items()}
        parts = lengths if self.cross_document else [size for row in rows for size in row["seq_lengths"]]
        edges = torch.tensor([0, *parts]).cumsum(0, dtype=torch.int32)
        return {
            **{name: torch.tensor([list(chain(*values))]) for name, values in batch.items()},
            "cu_seq_lens_q": edges, "cu_seq_lens_k": edges,
            "max_length_q": max(parts), "max_length_k": max(parts),
        }  # fmt: skip
