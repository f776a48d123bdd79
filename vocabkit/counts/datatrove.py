"""Count a corpus as tasks of datatrove, whose executors run them here, on Slurm or on Ray; one a source.

Each task writes its counts below the work folder; a task that failed is run again by the same command, those
that are complete are not. pip install datatrove; nothing else of the toolkit needs it.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.corpus.counting import (
    Progress,
    check_bad,
    describe_run,
    load_progress,
    processes,
    save_progress,
)
from vocabkit.corpus.files import find_sources, read_blocks
from vocabkit.corpus.records import parse_block
from vocabkit.corpus.workers import SHOWN
from vocabkit.counts.tokens import TokenCounter, may_be_fast, merge
from vocabkit.errors import UserError


def count_shard(model: Path, corpus: Sequence[str], work: Path, *, rank: int, text_field: str | None) -> None:
    """Count source number rank of a corpus into WORK/RANK.json, if that has not been done yet: the map step,
    free of any engine.
    """
    about = Progress(np.zeros(0, np.int64), [])
    source = find_sources(corpus, notes=about.notes.append)[rank]
    path, run = work / f"{rank:05}.json", describe_run(model, [source], text_field)
    with contextlib.suppress(UserError):  # of another text or tokenizer: counted anew
        if load_progress(path, run):
            return
    counter = TokenCounter(model, fast=may_be_fast(model, [source]))
    for block in read_blocks(source, text_field=text_field, notes=about.notes.append):
        texts, records, bad = parse_block(block, text_field=text_field)
        counter.add(texts)
        about.documents += len(texts)
        about.records += records
        about.bad += len(bad)
        about.bad_examples += bad[: SHOWN - len(about.bad_examples)]
    about.vector = counter.take()
    save_progress(path, run, about)


def count_with_datatrove(
    model: Path,
    corpus: Sequence[str],
    *,
    work: Path,
    text_field: str | None,
    workers: int | None,
    max_bad: float,
) -> Progress:
    """Count with datatrove's local executor; return the sum. On a cluster, give SlurmPipelineExecutor or
    RayPipelineExecutor the same step. Raises UserError if datatrove is missing or a task fails.
    """
    try:
        from datatrove.executor import LocalPipelineExecutor
        from datatrove.pipeline.base import PipelineStep
    except ImportError:
        raise UserError("--engine datatrove needs a package more: pip install datatrove") from None

    class CountTokens(PipelineStep):
        name = "count tokens"

        def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
            count_shard(model, corpus, work, rank=rank, text_field=text_field)
            return data

    tasks = len(find_sources(corpus))
    work.mkdir(exist_ok=True)
    executor = LocalPipelineExecutor(
        pipeline=[CountTokens()],
        tasks=tasks,
        workers=processes(workers),
        logging_dir=str(work / "logs"),
        skip_completed=False,  # count_shard knows better: a source may have changed
    )
    try:
        executor.run()
    except Exception as error:
        raise UserError(f"a task failed: {error}; the same command runs what is missing again") from error
    return merge_shards(model, corpus, work, text_field=text_field, max_bad=max_bad)


def merge_shards(
    model: Path, corpus: Sequence[str], work: Path, *, text_field: str | None, max_bad: float
) -> Progress:
    """Add up what the tasks wrote: the reduce step. Raises UserError if one is missing or of other texts."""
    sources = find_sources(corpus)
    shards = []
    for rank, source in enumerate(sources):
        shard = load_progress(work / f"{rank:05}.json", describe_run(model, [source], text_field))
        if shard is None:
            raise UserError(f"{work}: {source.name} is not counted yet; run the same command again")
        shards.append(shard)
    progress = Progress(merge(shard.vector for shard in shards), [None] * len(sources))
    for shard in shards:
        progress.documents += shard.documents
        progress.records += shard.records
        progress.bad += shard.bad
        progress.bad_examples += shard.bad_examples
        progress.notes += shard.notes
    check_bad(progress, max_bad=max_bad)
    return progress
