"""model_edit.py's tasks: what each does with the command line's arguments.

Reads what the arguments name; writes what the task writes. Heavy imports happen in the task that needs them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocabkit.checkpoint.hub import local_folder
from vocabkit.errors import UserError
from vocabkit.outputs import check_new

MOST_PADDING = 65_536  # rows: 512 for a kernel, on 128 GPUs that share a table


def run_task(args: argparse.Namespace, task: str, *, made_by: str) -> int:
    """Run one task; return the exit status. made_by: the command line, for the record."""
    if task in NEED_BASE and not args.base:
        raise UserError(f"{task} compares two folders: give the other one with -b")
    args.made_by = made_by
    if not args.model.endswith(".gguf"):
        return ON_FOLDERS[task](args)
    if task not in ON_GGUF:
        raise UserError(f"{task} takes the folder of a checkpoint, {args.model} is a GGUF file")
    return ON_GGUF[task](args)


def default_out(model: str, *, task: str) -> Path:
    """Return the folder beside MODEL that a task writes when -o is not given; an earlier trimming's name
    goes.

    A hub id has no folder of its own to stand beside: the result goes into the current one.

    >>> default_out("nobody/Qwen2.5-0.5B", task="trimm_vocab")
    PosixPath('Qwen2.5-0.5B__trimm_vocab')
    >>> default_out("nobody/Qwen2.5-0.5B__trimm_vocab", task="extend_vocab")
    PosixPath('Qwen2.5-0.5B__extend_vocab')
    """
    beside = _plain(model)
    name = beside.name.removesuffix("__trimm_vocab") if task == "extend_vocab" else beside.name
    return beside.with_name(f"{name}__{task}")


def _plain(model: str) -> Path:
    """Return MODEL so that a name can be made of it, also where it is . or ..; of a hub id the last part."""
    path = Path(model)
    if not path.exists():
        return Path(path.name)
    return path.resolve() if path.name in ("", "..") else path.with_name(path.resolve().name)


def _trim(args: argparse.Namespace) -> int:
    from vocabkit.edit.trim import trim_vocab
    from vocabkit.gguf.export import runtimes

    out = args.out or default_out(args.model, task="trimm_vocab")
    options = _of_both_edits(args) | _given(args, "allow_all_bytes")
    trim_vocab(local_folder(args.model), out, keep_paths=args.keep, runtimes=runtimes, **options)
    return 0


def _extend(args: argparse.Namespace) -> int:
    from vocabkit.edit.extend import extend_vocab

    out = args.out or default_out(args.model, task="extend_vocab")
    options = _of_both_edits(args) | _given(
        args, "words num_tokens num_words syllables init contexts contexts_per_word dictionary seed measure"
    )
    extend_vocab(local_folder(args.model), out, base=_base(args), **options)
    return 0


def _of_both_edits(args: argparse.Namespace) -> dict[str, Any]:
    if not 1 <= args.pad_multiple <= MOST_PADDING:
        raise UserError(
            f"--pad_multiple is {args.pad_multiple}, expected a number from 1 to {MOST_PADDING}, such as 64"
        )
    return _given(args, "pad_multiple hardlink dry_run made_by")


def _verify(args: argparse.Namespace) -> int:
    from vocabkit.verify.ladder import verify_edit

    model = local_folder(args.model)
    return 0 if verify_edit(local_folder(args.base), model, texts=args.texts, dtype=args.dtype) else 1


def _view(args: argparse.Namespace) -> int:
    from vocabkit.look.view import view_embeddings

    view_embeddings(local_folder(args.model), base=_base(args), tokens=args.tokens, plot=args.plot)
    return 0


def _compare_vocab(args: argparse.Namespace) -> int:
    from vocabkit.look.compare_vocab import compare_vocab

    model = local_folder(args.model)
    compare_vocab(local_folder(args.base), model)
    return 0


def _compare_inits(args: argparse.Namespace) -> int:
    from vocabkit.look.compare_inits import OPTIONS, compare_inits

    model = local_folder(args.model)
    compare_inits(local_folder(args.base), model, **{name: getattr(args, name) for name in OPTIONS})
    return 0


def _export_gguf(args: argparse.Namespace) -> int:
    from vocabkit.gguf.export import export_gguf

    folder = local_folder(args.model)
    out = args.out or Path(f"{_plain(args.model)}.gguf")
    check_new(out)
    export_gguf(folder, out, outtype=args.outtype)
    return 0


def _trim_gguf(args: argparse.Namespace) -> int:
    from vocabkit.gguf.trim import trim_gguf

    own = _given(args, "allow_all_bytes dry_run")
    trim_gguf(Path(args.model), args.out, keep_paths=args.keep, **own)
    return 0


def _verify_gguf(args: argparse.Namespace) -> int:
    from vocabkit.gguf.verify import verify_gguf

    if not args.base.endswith(".gguf"):
        raise UserError(
            f"{args.base} is no GGUF file, {args.model} is one; give the file it was trimmed from"
        )
    return 0 if verify_gguf(Path(args.base), Path(args.model), texts=args.texts) else 1


def _already_gguf(args: argparse.Namespace) -> int:
    raise UserError(f"{args.model} is a GGUF file already; export_gguf takes a folder")


def _base(args: argparse.Namespace) -> Path | None:
    return local_folder(args.base) if args.base else None


def _given(args: argparse.Namespace, names: str) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names.split()}


NEED_BASE = ("verify_edit", "compare_vocab", "compare_inits")

ON_FOLDERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "trimm_vocab": _trim,
    "extend_vocab": _extend,
    "verify_edit": _verify,
    "view_embeddings": _view,
    "compare_vocab": _compare_vocab,
    "compare_inits": _compare_inits,
    "export_gguf": _export_gguf,
}

ON_GGUF: dict[str, Callable[[argparse.Namespace], int]] = {
    "trimm_vocab": _trim_gguf,
    "verify_edit": _verify_gguf,
    "export_gguf": _already_gguf,
}
