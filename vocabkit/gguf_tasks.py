"""model_edit.py's tasks on GGUF files: trimm_vocab and verify_edit of a file, export_gguf of a folder."""

import argparse
from pathlib import Path

from vocabkit.errors import UserError
from vocabkit.files import check_new


def run_gguf_task(args: argparse.Namespace, task: str) -> int:
    """Run one task as the command line says; return the exit status."""
    model = Path(args.model)
    if task == "export_gguf":
        from vocabkit.gguf_export import export_gguf
        from vocabkit.hub import local_folder

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
        from vocabkit.gguf_trim import trim_gguf

        trim_gguf(
            model, args.out, keep_paths=args.keep, allow_all_bytes=args.allow_all_bytes, dry_run=args.dry_run
        )
        return 0
    if task == "verify_edit":
        from vocabkit.gguf_verify import verify_gguf

        if not args.base.endswith(".gguf"):
            raise UserError(f"{args.base} is no GGUF file, {model} is one; give the file it was trimmed from")
        return 0 if verify_gguf(Path(args.base), model, texts=args.texts) else 1
    raise UserError(f"{task} takes the folder of a checkpoint, {model} is a GGUF file")


def _plain(folder: Path) -> Path:
    """The folder's path without what would end a name oddly: MODEL/ and . become MODEL."""
    return folder.with_name(folder.resolve().name)
