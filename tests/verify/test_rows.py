"""vocabkit/verify/rows.py finds each damage to the rows of a trimmed and of an extended folder."""

from pathlib import Path

import numpy as np
import pytest
from tiny import edit_json
from verifying import NEW, break_row, overwrite

from vocabkit.files import read_json
from vocabkit.verify.check import SHOWN
from vocabkit.verify.edited import open_edited
from vocabkit.verify.rows import check_rows


def break_head_row(out: Path) -> None:
    overwrite(out, "lm_head.weight", b"\x01\x02\x03\x04", row=7)


def break_padding(out: Path) -> None:
    overwrite(out, "lm_head.weight", b"\x01", row=read_json(out / "vocab_edit.json")["n_tokens"])


def new_row(out: Path, values: np.ndarray) -> None:
    overwrite(out, "lm_head.weight", values.astype(np.float32).tobytes(), row=NEW)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (break_row, "model.embed_tokens.weight row differs: 7"),
        (break_head_row, "lm_head.weight row differs: 7"),
        (break_padding, "are not all zero"),
    ],
)
@pytest.mark.parametrize("kind", ["pair", "extended"])
def test_finds_each_damage(request, kind, damage, expected):
    source, out = request.getfixturevalue(kind)
    assert check_rows(open_edited(source, out)).findings == []
    damage(out)
    found = check_rows(open_edited(source, out)).findings
    assert len(found) == 1 and expected in found[0]


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.full(32, 1e6), "lm_head.weight new row: 424 (' hôm nay') has the norm"),
        (np.zeros(32), "lm_head.weight new row: 424 (' hôm nay') has the norm 0"),
        (np.full(32, np.nan), "new row: 424 (' hôm nay') is not finite"),
    ],
    ids=["long", "zero", "nan"],
)
def test_finds_each_damage_to_a_new_row(extended, values, expected):
    source, out = extended
    new_row(out, values)
    found = check_rows(open_edited(source, out)).findings
    assert any(expected in finding for finding in found), found


def test_many_rows_that_differ_are_counted(pair):
    source, out = pair
    for row in range(20):
        overwrite(out, "lm_head.weight", b"\x01\x02\x03\x04", row=row)
    check = check_rows(open_edited(source, out))
    found = [finding for finding in check.findings if "row differs" in finding]
    assert 0 < len(found) <= SHOWN + 1 and check.numbers["rows_different"] == 20


def test_zeros_must_be_zeros(extended):
    source, out = extended
    edit_json(out / "vocab_edit.json", init={"name": "zeros"})
    assert any("expected 0 to 0" in finding for finding in check_rows(open_edited(source, out)).findings)
