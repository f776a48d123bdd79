"""Training data: files, folders and hub data sets → token ids and labels, tokenized once.

Reads what vocabkit/corpus/files.py reads; writes one folder per file below a cache folder, named by the
content of the file and of the tokenizer: changing either, and nothing else, makes it anew.

    rows = load_dataset(["corpus.jsonl.xz", "chats.jsonl:2", "hf:NAME"], tokenizer, max_length=2048, seed=1)

Needs datasets and pyarrow; both are imported when the first row is asked for.
"""

import functools
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any, TypedDict

from vocabkit.checkpoint.folder import DOCUMENT_ENDS
from vocabkit.corpus.files import Source, find_sources, print_note, read_blocks
from vocabkit.corpus.records import HUB, STDIN, TEXT, BadRecord, parse_rows
from vocabkit.corpus.streams import Notes
from vocabkit.errors import UserError, reading
from vocabkit.files import read_versioned, sha256_file, write_json
from vocabkit.outputs import new_directory
from vocabkit.train.data.chat_mask import encode_chat
from vocabkit.train.data.chats import ALWAYS
from vocabkit.train.data.samples import COLUMNS, IGNORED, KINDS, Sample, samples_of

FORMAT, VERSION = "vocabkit-tokenized", 2  # a cache of the version before is made anew

ROWS, ABOUT = "rows.arrow", "about.json"
BATCH = 512  # samples tokenized at a time
SHOWN = 5  # bad rows of a source that are printed
BYTES_PER_TOKEN = 2  # a .txt becomes documents that mostly fit the context: text has 2 to 5


@dataclass
class Report:
    """What reading one source gave."""

    rows: int = 0  # samples that became token ids
    bad: int = 0
    shown: list[str] = field(default_factory=list)  # "FILE:LINE: reason" of the first bad ones
    no_assistant: int = 0  # of the bad ones
    too_long: int = 0  # conversations of more tokens than the context
    unread: dict[str, list[Any]] = field(default_factory=dict)  # column: [rows, "FILE:LINE" of the first]


class _Reported(TypedDict):
    rows: int
    bad: int
    shown: list[str]
    no_assistant: int
    too_long: int
    unread: dict[str, list[Any]]


class _About(TypedDict):
    report: _Reported


def split_weight(name: str) -> tuple[str, float]:
    """Return a source and how often its rows are seen: "a.jsonl:2" is a.jsonl, twice.

    >>> split_weight("a.jsonl.xz:0.5"), split_weight("hf:name:vi:train"), split_weight("b")
    (('a.jsonl.xz', 0.5), ('hf:name:vi:train', 1.0), ('b', 1.0))
    """
    path, colon, weight = name.rpartition(":")
    try:
        value = float(weight)
    except ValueError:
        return name, 1.0
    if not colon or Path(name).exists():
        return name, 1.0
    if not 0 < value < float("inf"):
        raise UserError(f"{name}: the weight is {weight}, expected a number above 0, such as {path}:2")
    return path, value


def load_dataset(
    data_paths: Sequence[str],
    tokenizer: Any,
    *,
    max_length: int,
    stage_mix: dict[str, float] | None = None,
    start: int | None = None,
    cache_dir: Path | None = None,
    seed: int = 0,
    text_field: str | None = None,
    notes: Notes = print_note,
) -> Any:
    """Return a datasets.Dataset with a row per document, not cut, in the order of the files.

    Columns: input_ids; labels (-100 where nothing is learned: the start token of a text, all of a
    conversation but the assistant's turns); num_bytes of UTF-8 text that the labels stand for; kind, an index
    of samples.KINDS; source, an index of data_paths.

    start: the id that a text begins with (None: bos_token, or the end of a text where there is none).
    A weight (split_weight) repeats all rows of a source, or takes a random part of them. stage_mix: share of
    tokens per kind. The set is as large as it gets without repeating a row; kinds it does not name are left
    out. Conversations longer than max_length tokens are left out: cut, they would lose the answer. Raises
    UserError for data that gives nothing to learn.
    """
    import datasets

    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"{tokenizer.name_or_path} has no tokenizer.json, which training needs for its offsets"
        )
    tables, reports = [], []
    for number, given in enumerate(data_paths):
        name, weight = split_weight(given)
        parts = []
        for source in find_sources([name], notes=notes):
            table, report = _rows_of(
                source,
                tokenizer,
                max_length=max_length,
                ends=document_ends(tokenizer, start=start),
                cache_dir=cache_dir,
                text_field=text_field,
                notes=notes,
            )
            _print_report(source.name, report, max_length, notes)
            reports.append(report)
            if len(table):
                parts.append(table)
        if parts:
            rows = datasets.concatenate_datasets(parts)
            rows = rows.add_column("source", [number] * len(rows))
            tables.append(_weighted(rows, weight, seed=seed + number))
    if not tables:
        raise _nothing_to_learn(data_paths, reports, max_length)
    rows = datasets.concatenate_datasets(tables)
    rows = _mixed(rows, stage_mix, seed=seed, notes=notes) if stage_mix else rows
    for kind, (count, tokens) in count_kinds(rows).items():
        notes(f"{kind}: {count:,} documents, {tokens:,} tokens")
    return rows


def _nothing_to_learn(paths: Sequence[str], reports: list[Report], max_length: int) -> UserError:
    names = ", ".join(paths)
    bad = sum(report.bad for report in reports)
    if long := sum(report.too_long for report in reports):
        return UserError(
            f"{names}: all {long:,} conversations are longer than the context of {max_length:,} tokens; "
            "raise --model_max_length, or give shorter ones"
        )
    if bad and bad == sum(report.no_assistant for report in reports):
        return UserError(
            f"{names}: none of {bad:,} conversations has an assistant turn; there is nothing to learn"
        )
    first = next((line for report in reports for line in report.shown), "no rows at all")
    return UserError(f"{names}: no row can be learned from, {bad:,} are bad; the first: {first}")


def _print_report(name: str, report: Report, max_length: int, notes: Notes) -> None:
    if report.bad:
        notes(f"{name}: {report.bad:,} rows cannot be used, {report.rows:,} can; the first bad ones:")
        for line in report.shown:
            notes(f"  {line}")
    for column, (rows, place) in report.unread.items():
        notes(f'{place}: "{column}" is not read' + (f" ({rows:,} rows)" if rows > 1 else ""))
    if report.too_long:
        notes(
            f"{name}: {report.too_long:,} conversations are longer than the context of {max_length:,} tokens "
            "and are left out"
        )


# Tokenizing and the cache


def document_ends(tokenizer: Any, *, start: int | None = None) -> tuple[int, int]:
    """Return the ids a text begins and ends with; a tokenizer without bos_token begins with the end of one.

    start: the first where it is known already.

    So every token of a text is predicted, whatever the tokenizer, and bits per byte can be compared.
    """
    known = tokenizer.get_vocab()
    end = next((known[name] for name in DOCUMENT_ENDS if name in known), tokenizer.eos_token_id)
    if end is None:
        raise UserError(f"{tokenizer.name_or_path} has no eos_token; name one in its tokenizer_config.json")
    start = tokenizer.bos_token_id if start is None else start
    return (end if start is None else start), end


@functools.cache
def _schema() -> Any:
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    return pa.schema([("input_ids", ids), ("labels", ids), ("num_bytes", pa.int64()), ("kind", pa.int8())])


def _rows_of(
    source: Source,
    tokenizer: Any,
    *,
    max_length: int,
    ends: tuple[int, int],
    cache_dir: Path | None,
    text_field: str | None,
    notes: Notes,
) -> tuple[Any, Report]:
    """The rows of one source and what was wrong with it, out of the cache where they are there."""
    import datasets
    import pyarrow as pa

    report = Report()
    batches = functools.partial(
        _encoded, source, tokenizer, max_length=max_length, ends=ends, text_field=text_field, report=report,
        notes=notes,
    )  # fmt: skip
    if cache_dir is None or source.kind in (HUB, STDIN):  # their content is known when they have been read
        table = pa.Table.from_batches(batches(), schema=_schema())
        return datasets.Dataset(table), report
    about = {
        "format": FORMAT,
        "version": VERSION,
        "source_sha256": sha256_file(Path(source.name)),
        "tokenizer_sha256": hashlib.sha256(_description(tokenizer).encode()).hexdigest(),
        "kind": source.kind + source.compression,
        "max_length": max_length,
        "document_ends": list(ends),
        "text_field": text_field,
    }
    folder = cache_dir / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    if not folder.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with new_directory(folder) as part:
            with pa.OSFile(str(part / ROWS), "wb") as sink, pa.ipc.new_stream(sink, _schema()) as writer:
                for batch in batches():
                    writer.write_batch(batch)
            write_json(part / ABOUT, {**about, "report": vars(report)})
    found = read_versioned(folder / ABOUT, format=FORMAT, version=VERSION, shape=_About)
    if {name: found.get(name) for name in about} != about:
        raise UserError(f"{folder} was made from other data than its name says; remove it: rm -r {folder}")
    with reading(folder, again=f"remove it: rm -r {folder}"):
        return datasets.Dataset.from_file(str(folder / ROWS)), Report(**found["report"])


def _description(tokenizer: Any) -> str:
    """All that decides how a tokenizer encodes."""
    settings = [tokenizer.chat_template, tokenizer.special_tokens_map]
    return tokenizer.backend_tokenizer.to_str() + json.dumps(settings, default=str, sort_keys=True)


def _encoded(
    source: Source,
    tokenizer: Any,
    *,
    max_length: int,
    ends: tuple[int, int],
    text_field: str | None,
    report: Report,
    notes: Notes,
) -> Iterator[Any]:
    """Record batches of a source; report is filled on the way."""
    size = BYTES_PER_TOKEN * max_length if source.kind == TEXT else None
    columns = (text_field, *ALWAYS) if text_field else COLUMNS

    def left_out(names: Sequence[str]) -> None:
        report.unread |= {name: [0, source.name] for name in names}

    waiting: list[tuple[str, Sample]] = []
    rows_with_samples = 0
    blocks = read_blocks(
        source, text_field=text_field, columns=columns, left_out=left_out, block_bytes=size, notes=notes
    )
    for block in blocks:
        rows, _, bad = parse_rows(block, text_field=text_field)
        for line in bad:
            _add_bad(report, line)
        for place, row in rows:
            try:
                samples = samples_of(row, text_field=text_field, swap=bool(rows_with_samples % 2))
            except BadRecord as error:
                report.no_assistant += str(error).startswith("no assistant turn")
                _add_bad(report, f"{place}: {error}")
                continue
            rows_with_samples += 1
            for name in samples[0].unread:
                report.unread.setdefault(name, [0, place])[0] += 1
            waiting += [(place, sample) for sample in samples]
            if len(waiting) >= BATCH:
                yield _batch(waiting, tokenizer, max_length=max_length, ends=ends, report=report)
                waiting = []
    if waiting:
        yield _batch(waiting, tokenizer, max_length=max_length, ends=ends, report=report)


def _batch(
    placed: list[tuple[str, Sample]],
    tokenizer: Any,
    *,
    max_length: int,
    ends: tuple[int, int],
    report: Report,
) -> Any:
    """A record batch of samples; texts are encoded together, which the tokenizer does on all cores."""
    import pyarrow as pa

    start, end = ends
    texts = [sample.text for _, sample in placed if sample.chat is None]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    of_texts = iter(encoded)
    rows = []
    for place, sample in placed:
        if sample.chat is None:
            body = [*next(of_texts), end]
            ids, labels, size = [start, *body], [IGNORED, *body], len(sample.text.encode("utf-8"))
        else:
            try:
                ids, labels, size = encode_chat(tokenizer, sample.chat)
            except BadRecord as error:
                _add_bad(report, f"{place}: {error}")
                continue
            if len(ids) > max_length:
                report.too_long += 1
                continue
        kind = KINDS.index(sample.kind)
        rows.append({"input_ids": ids, "labels": labels, "num_bytes": size, "kind": kind})
    report.rows += len(rows)
    return pa.RecordBatch.from_pylist(rows, schema=_schema())


def _add_bad(report: Report, line: str) -> None:
    report.bad += 1
    if len(report.shown) < SHOWN:
        report.shown.append(line)


# Weights and shares


def _weighted(rows: Any, weight: float, *, seed: int) -> Any:
    """Every row int(weight) times, and a random part of them once more for the rest."""
    whole, part = int(weight), round((weight % 1) * len(rows))
    chosen = sorted(random.Random(seed).sample(range(len(rows)), part))
    order = sorted([*range(len(rows))] * whole + chosen)
    if not order:
        raise UserError(f"a weight of {weight:g} leaves none of {len(rows):,} rows; give a larger one")
    return rows if weight == 1 else rows.select(order)


def _lengths(rows: Any) -> list[int]:
    import pyarrow.compute as pc

    return pc.list_value_length(rows.with_format("arrow")[:].column("input_ids")).to_pylist()


def count_kinds(rows: Any) -> dict[str, tuple[int, int]]:
    """Return documents and tokens of each kind of data that there is."""
    documents: Counter[int] = Counter(kinds := rows["kind"][:])
    tokens: Counter[int] = Counter()
    for kind, length in zip(kinds, _lengths(rows), strict=True):
        tokens[kind] += length
    return {name: (documents[at], tokens[at]) for at, name in enumerate(KINDS) if documents[at]}


def _mixed(rows: Any, mix: dict[str, float], *, seed: int, notes: Notes) -> Any:
    """Random rows, in their order, so that the tokens of each kind have their share."""
    for name, share in mix.items():
        if name not in KINDS or not 0 < share < float("inf"):
            raise UserError(f"--stage_mix {name}={share:g}: expected {', '.join(KINDS)} and shares above 0")
    there = {name: tokens for name, (_, tokens) in count_kinds(rows).items()}
    for name in mix:
        if name not in there:
            raise UserError(
                f"--stage_mix asks for {name} data, the data is {', '.join(there)}; add some, or change it"
            )
    if left_out := [name for name in there if name not in mix]:
        notes(f"--stage_mix does not name {', '.join(left_out)}: left out")
    total = min(there[name] * sum(mix.values()) / share for name, share in mix.items())
    wanted = {KINDS.index(name): total * share / sum(mix.values()) for name, share in mix.items()}
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    kinds, lengths = rows["kind"][:], _lengths(rows)
    chosen = []
    for at in order:
        if wanted.get(kinds[at], 0) >= lengths[at] / 2:
            wanted[kinds[at]] -= lengths[at]
            chosen.append(at)
    return rows.select(sorted(chosen))


def hold_out(rows: Any, share: float, *, seed: int = 0) -> tuple[Any, Any]:
    """Return (training rows, held-out rows): by a checksum of their tokens, so equal ones are on one side.

    So a document that a weight repeats is never both learned and measured. At least one document is on either
    side. Raises UserError if there are not two.
    """
    digests = [
        hashlib.sha256(f"{seed}:{ids.tolist()}".encode()).digest()
        for ids in rows.with_format("numpy")["input_ids"]
    ]
    different = sorted(set(digests))
    if len(different) < 2:
        raise UserError(
            f"{len(different):,} different document is too little to hold a share of {share:g} out of it; "
            "give more, --eval_share 0, or held-out data with --eval_path"
        )
    count = min(max(1, round(share * len(different))), len(different) - 1)
    apart = set(different[:count])
    held = [at for at, digest in enumerate(digests) if digest in apart]
    rest = [at for at, digest in enumerate(digests) if digest not in apart]
    return rows.select(rest), rows.select(held)


# What is learned, to look at


def print_sample(rows: Any, tokenizer: Any, *, file: IO[str] = sys.stdout) -> None:
    """Print the first row, what is learned in green, the rest in grey; in ⟦ ⟧ where there is no terminal."""
    colours = file.isatty()
    learned_or_not = groupby(
        zip(rows[0]["input_ids"], rows[0]["labels"], strict=True), key=lambda pair: pair[1] != IGNORED
    )
    for learned, pairs in learned_or_not:
        text = tokenizer.decode([token for token, _ in pairs], skip_special_tokens=False)
        if colours:
            print(f"\033[{32 if learned else 90}m{text}\033[0m", end="", file=file)
        else:
            print(f"⟦{text}⟧" if learned else text, end="", file=file)
    print(file=file)
