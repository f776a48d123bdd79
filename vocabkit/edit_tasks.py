"""model_edit.py's tasks: what each does with the command line's arguments.

Reads what the arguments name; writes what the task writes. Heavy imports happen in the branch that needs
them.
"""

import argparse
from pathlib import Path

from vocabkit.errors import UserError


def run_task(args: argparse.Namespace, task: str, *, made_by: str) -> int:
    """Run one task; return the exit status. made_by: the command line, for the record."""
    from vocabkit.hub import local_folder

    if task in ("verify_edit", "compare_vocab", "compare_inits") and not args.base:
        raise UserError(f"{task} compares two folders: give the other one with -b")
    if args.model.endswith(".gguf") or task == "export_gguf":
        from vocabkit.gguf_tasks import run_gguf_task

        return run_gguf_task(args, task)
    model = local_folder(args.model)
    base = local_folder(args.base) if args.base else None
    if task in ("trimm_vocab", "extend_vocab"):
        return _edit(args, task, model, base, made_by=made_by)
    if task == "verify_edit":
        from vocabkit.ladder import verify_edit

        assert base is not None
        return 0 if verify_edit(base, model, texts=args.texts, dtype=args.dtype) else 1
    if task == "view_embeddings":
        from vocabkit.view import view_embeddings

        view_embeddings(model, base=base, tokens=args.tokens, plot=args.plot)
        return 0
    assert base is not None
    if task == "compare_inits":
        from vocabkit.compare_inits import OPTIONS, compare_inits

        compare_inits(base, model, **{name: getattr(args, name) for name in OPTIONS})
        return 0
    from vocabkit.compare import compare_vocab

    compare_vocab(base, model)
    return 0


def _edit(args: argparse.Namespace, task: str, model: Path, base: Path | None, *, made_by: str) -> int:
    from vocabkit.edit import default_out

    if args.pad_multiple < 1:
        raise UserError(f"--pad_multiple is {args.pad_multiple}, expected 1 or more, such as 64")
    out = args.out or default_out(args.model, task=task)
    shared = {"pad_multiple": args.pad_multiple, "hardlink": args.hardlink, "made_by": made_by}
    shared["dry_run"] = args.dry_run
    if task == "trimm_vocab":
        from vocabkit.trim import trim_vocab

        own = {"keep_paths": args.keep, "allow_all_bytes": args.allow_all_bytes}
        trim_vocab(model, out, **own, **shared)
    else:
        from vocabkit.extend import extend_vocab

        names = "words num_words syllables init contexts contexts_per_word dictionary seed".split()
        own = {name: getattr(args, name) for name in names}
        extend_vocab(model, out, base=base, **own, **shared)
    return 0
