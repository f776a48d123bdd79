"""Trim a checkpoint's vocabulary: choose what stays, plan it, and have it written (vocabkit/edit/write.py).

Reads a Hugging Face folder and kept lists; writes a new folder. The source is never changed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vocabkit.checkpoint.folder import Folder, open_folder, without_gc
from vocabkit.edit.write import record_of, writing
from vocabkit.tokenizer.chat_template import frames, render_chat
from vocabkit.tokenizer.encoder import encoded, load_encoder
from vocabkit.vocab.lists import wanted_ids
from vocabkit.vocab.plan import Plan, make_plan, own_script, writing_of


def trim_vocab(
    model: Path,
    out: Path,
    *,
    keep_paths: Sequence[Path] = (),
    pad_multiple: int = 64,
    allow_all_bytes: bool = False,
    hardlink: bool = False,
    dry_run: bool = False,
    made_by: str = "vocabkit",
    runtimes: Callable[[Folder], str] | None = None,
) -> None:
    """Trim MODEL into OUT; with dry_run print what would be kept and write nothing.

    runtimes: returns what the model can be run with, which is printed before anything is written.
    Raises UserError for whatever the user can mend; OUT then does not exist, and the source is as it was.
    """

    def decide() -> tuple[Plan, dict[str, Any]]:
        ids, origin = wanted_ids(source.tokenizer, keep_paths)
        plan = make_plan(
            source.tokenizer,
            ids,
            required_ids=source.required | _chat_ids(source),
            spm_models=source.spm_models.values(),
            pad_multiple=pad_multiple,
            allow_all_bytes=allow_all_bytes,
        )
        with tqdm.external_write_mode():  # not into the line of a progress bar
            print_plan(source, plan, origin)
            if runtimes:
                print(runtimes(source))
        return plan, origin

    with without_gc():
        source = open_folder(model, to_edit=True)
        if dry_run:
            decide()
            return
        with writing(source, out, hardlink=hardlink) as edit:
            plan, origin = decide()
            kept = {
                **origin,
                "requested": plan.requested,
                "always_kept": plan.always_kept,
                "added_by_closure": plan.added_by_closure,
            }
            edit.finish(plan, record_of(source, plan, task="trimm_vocab", made_by=made_by, keep=kept))


def print_plan(source: Folder, plan: Plan, origin: dict[str, Any]) -> None:
    """Print what would be kept, and what it saves."""
    tokens = len(source.tokenizer.tokens)
    row_bytes = sum(tensor.row_bytes for tensor in (*source.tensors.embed, *source.tensors.head))
    before = source.checkpoint.size
    after = before - (source.tensors.rows - plan.vocab_size) * row_bytes
    tied = "tied" if source.tensors.tied else "untied"
    print(f"{source.path}: {source.tokenizer.family}, {tied} embeddings")
    print(f"kept list: {origin['how']}: {origin['source']}")
    print(f"tokens    {tokens:>13,} → {plan.n_tokens:>13,}  ({plan.n_tokens / tokens:.1%} kept)")
    print(f"          {plan.requested:>13,} asked for")
    print(f"          {plan.always_kept:>13,} always kept: bytes, added tokens, what files and template name")
    print(
        f"          {plan.added_by_closure:>13,} added by closure: the parts that the others are merged from"
    )
    print(f"rows      {source.tensors.rows:>13,} → {plan.vocab_size:>13,}")
    print(f"bytes     {before:>13,} → {after:>13,}  ({(before - after) / before:.1%} saved)")
    for reason, ids in plan.suppressed.items():
        print(f"not generated: {len(ids)} ids, {reason}")
    if plan.written_scripts:
        listed = ", ".join(f"{script} ({count})" for script, count in sorted(plan.written_scripts.items()))
        print(f"the list keeps tokens of {listed}: the model can still write these scripts")
    for line in writing_of(plan):
        print(line)


def _chat_ids(source: Folder) -> set[int]:
    """Return the ids of what the chat template writes around messages: without them, every chat would be read
    otherwise than before.
    """
    texts = frames(lambda messages: render_chat(source.path, messages))
    if not any(texts):
        return set()
    found = encoded(load_encoder(source.path), texts)
    return own_script(source.tokenizer, {token_id for encoding in found for token_id in encoding.ids})
