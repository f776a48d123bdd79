"""model_edit.py's tasks: what each does with the command line's arguments.

Reads what the arguments name; writes what the task writes. Heavy imports happen in the branch that needs
them.
"""

import argparse
from pathlib import Path

from vocabkit.errors import UserError
from vocabkit.outputs import check_new


def run_task(args: argparse.Namespace, task: str, *, made_by: str) -> int:
    """Run one task; return the exit status. made_by: the command line, for the record."""
    from vocabkit.checkpoint.hub import local_folder

    if task in ("verify_edit", "compare_vocab", "compare_inits") and not args.base:
        raise UserError(f"{task} compares two folders: give the other one with -b")
    if args.model.endswith(".gguf") or task == "export_gguf":
        return run_gguf_task(args, task)
    model = local_folder(args.model)
    base = local_folder(args.base) if args.base else None
    if task in ("trimm_vocab", "extend_vocab"):
        return _edit(args, task, model, base, made_by=made_by)
    if task == "verify_edit":
        from vocabkit.verify.ladder import verify_edit

        assert base is not None
        return 0 if verify_edit(base, model, texts=args.texts, dtype=args.dtype) else 1
    if task == "view_embeddings":
        from vocabkit.look.view import view_embeddings

        view_embeddings(model, base=base, tokens=args.tokens, plot=args.plot)
        return 0
    assert base is not None
    if task == "compare_inits":
        from vocabkit.look.compare_inits import OPTIONS, compare_inits

        compare_inits(base, model, **{name: getattr(args, name) for name in OPTIONS})
        return 0
    from vocabkit.look.compare_vocab import compare_vocab

    compare_vocab(base, model)
    return 0


def _edit(args: argparse.Namespace, task: str, model: Path, base: Path | None, *, made_by: str) -> int:
    from vocabkit.edit.write import default_out

    if args.pad_multiple < 1:
        raise UserError(f"--pad_multiple is {args.pad_multiple}, expected 1 or more, such as 64")
    out = args.out or default_out(args.model, task=task)
    shared = {"pad_multiple": args.pad_multiple, "hardlink": args.hardlink, "made_by": made_by}
    shared["dry_run"] = args.dry_run
    if task == "trimm_vocab":
        from vocabkit.edit.trim import trim_vocab

        own = {"keep_paths": args.keep, "allow_all_bytes": args.allow_all_bytes}
        trim_vocab(model, out, **own, **shared)
    else:
        from vocabkit.edit.extend import extend_vocab

        names = "words num_tokens num_words syllables init contexts contexts_per_word dictionary seed".split()
        own = {name: getattr(args, name) for name in names}
        extend_vocab(model, out, base=base, **own, **shared)
    return 0


def run_gguf_task(args: argparse.Namespace, task: str) -> int:
    """Run one task as the command line says; return the exit status."""
    model = Path(args.model)
    if task == "export_gguf":
        from vocabkit.checkpoint.hub import local_folder
        from vocabkit.gguf.export import export_gguf

        if model.suffix == ".gguf":
            raise UserError(f"{model} is a GGUF file already; export_gguf takes a folder")
        folder = local_folder(args.model)
        out = args.out or Path(
            f"{folder.resolve().name}.gguf" if not model.exists() else f"{_plain(model)}.gguf"
        )
        check_new(out)
        export_gguf(folder, out, outtype=args.outtype)
        return 0
    if task == "trimm_vocab":
        from vocabkit.gguf.trim import trim_gguf

        trim_gguf(
            model, args.out, keep_paths=args.keep, allow_all_bytes=args.allow_all_bytes, dry_run=args.dry_run
        )
        return 0
    if task == "verify_edit":
        from vocabkit.gguf.verify import verify_gguf

        if not args.base.endswith(".gguf"):
            raise UserError(f"{args.base} is no GGUF file, {model} is one; give the file it was trimmed from")
        return 0 if verify_gguf(Path(args.base), model, texts=args.texts) else 1
    raise UserError(f"{task} takes the folder of a checkpoint, {model} is a GGUF file")


def _plain(folder: Path) -> Path:
    """The folder's path without what would end a name oddly: MODEL/ and . become MODEL."""
    return folder.with_name(folder.resolve().name)
