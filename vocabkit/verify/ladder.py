"""verify_edit: the whole ladder of checks on an edited folder, its table and its report.

Reads the edited folder, its base and texts; writes verify_report.json into the edited folder. A base of .bin
files is written as safetensors into a temporary folder beside it first.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vocabkit.checkpoint.torch_bin import open_weights, with_bytes
from vocabkit.corpus.lines import check_readable, read_texts
from vocabkit.files import SELF_TEST_TEXTS
from vocabkit.verify.check import print_checks, write_report
from vocabkit.verify.edited import open_edited
from vocabkit.verify.files import check_files
from vocabkit.verify.rows import check_rows
from vocabkit.verify.tokenizer import check_tokenizer
from vocabkit.verify.writes import check_writes


def verify_edit(
    base: Path, model: Path, *, texts: Sequence[str | Path] | None = None, dtype: str | None = None
) -> bool:
    """Run checks 1 to 7 on MODEL beside BASE, print and record them; return whether all hold.

    The others are asked only where files, tokenizer and rows hold: else a model would not load, or differ for
    that reason.
    """
    paths = list(texts) if texts else [SELF_TEST_TEXTS]
    check_readable(paths)
    name = ", ".join(str(path) for path in texts) if texts else "the bundled texts"
    edited = open_edited(base, model)
    with with_bytes(open_weights(base), model.parent) as checkpoint:
        edited = replace(edited, opened_base=checkpoint)
        checks = [
            check_files(edited),
            check_tokenizer(edited, read_texts(paths), name=name),
            check_rows(edited),
        ]
    if not any(check.findings for check in checks):
        from vocabkit.models.load import silence
        from vocabkit.verify.logits import check_model

        silence()
        writes = check_writes(edited, read_texts(paths))
        checks += [*check_model(edited, read_texts(paths, lines_per_text=1), dtype=dtype), writes]
    print_checks(checks)
    write_report(model, checks, base=base, model=model)
    passed = not any(check.findings for check in checks)
    print(f"{model}: {'every check holds' if passed else 'FAILED, see above'}")
    return passed
