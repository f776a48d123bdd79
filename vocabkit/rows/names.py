"""The ways to make rows for new tokens, by name, and which one is meant; reads and writes nothing.

The standard library is enough for it: model_edit.py --help says from here what there is.
"""

from collections.abc import Sequence

from vocabkit.errors import UserError
from vocabkit.files import DATA

BUNDLED_EXAMPLES = DATA / "vi_words_similarity.jsonl"

MEANINGS = {
    "zeros": "0: a word that says nothing, for comparison",
    "random": "by chance, each dimension with the mean and standard deviation of the old rows",
    "mean": "mean of the rows of the word's old tokens",
    "weighted": "mean in which the last old token weighs most for reading, the first for writing",
    "first_last": "the row of the last old token for reading, that of the first for writing",
    "english": "mean over the word's English equivalents in --dictionary",
    "neighbours": "mean over the old words whose hidden states are nearest to the word's; runs the model",
    "distill": "learned from texts: the model goes on from the word as from its old tokens; runs the model",
}

INITS = tuple(MEANINGS)

FORMULAS = INITS[:-1]  # distill is none: rows/distill.py

DEFAULT = "weighted"  # the best of those that run no model, on both sides together

START = "weighted"  # what rows are before they are distilled


def choose_init(init: str | None, contexts: Sequence[str]) -> tuple[str, list[str]]:
    """Return the init that is meant, DEFAULT where none is given, and the texts to distil from.

    Raises UserError for texts with an init that reads none, and for `distill` without any.

    >>> choose_init(None, []), choose_init("distill", ["texts/"])
    (('weighted', []), ('distill', ['texts/']))
    """
    if contexts and init is None:
        print(f"--contexts are read by --init distill alone: rows are {DEFAULT} means")
    if contexts and init not in (None, "distill"):
        raise UserError(f"--init {init} reads no texts; leave --contexts out, or take --init distill")
    if init != "distill":
        return init or DEFAULT, []
    bundled = [str(BUNDLED_EXAMPLES)] if BUNDLED_EXAMPLES.is_file() else []
    if not contexts and not bundled:
        raise UserError("--init distill learns from texts: give Vietnamese files or folders with --contexts")
    return init, list(contexts) or bundled
