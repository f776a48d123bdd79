"""Rung 6, for folders with new tokens: what these take in text in which none of them belongs.

Runs the edited model on the bundled sentences and prompts (rows/elsewhere.py); writes nothing.
"""

from dataclasses import replace
from typing import Any

from vocabkit.models.split_rows import split_rows
from vocabkit.models.word_model import WordModel
from vocabkit.rows.elsewhere import find_other_texts
from vocabkit.rows.leak import broken, judged, measure_all, read_places
from vocabkit.verify.check import Check
from vocabkit.verify.edited import Edited


def check_other_text(edited: Edited, model: Any, *, start: int) -> Check:
    """6: in ordinary text of both languages new tokens take next to nothing, and answers begin as before.

    model: the edited folder's, whose new rows become parameters of their own. start: the id texts begin with.
    """
    first, stop = min(edited.added), max(edited.added) + 1
    split_rows(model, first=first, stop=stop)
    reader = WordModel(model, start=start, masked=True)
    texts = find_other_texts(edited.base, edited.base_encoder, edited.encoder, first_new=first).test
    read = {
        kind: read_places(
            reader, [replace(text, ids=[edited.old_to_new[old] for old in text.ids]) for text in some]
        )
        for kind, some in texts.items()
    }
    leaks = measure_all(reader, read)
    numbers = {
        f"{name}_{kind.lower().replace(' ', '_')}": value
        for kind, leak in leaks.items()
        for name, value in leak.as_json().items()
    }
    return Check(
        "6 other text",
        f"{sum(leak.places for leak in leaks.values()):,} places of {', '.join(leaks)}",
        numbers,
        broken(leaks, judged(read)),
    )
