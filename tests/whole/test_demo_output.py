"""What ./demo.sh printed: the answers and figures it promises. Reads the log named by $VOCABKIT_DEMO_LOG."""

import os
import re
from pathlib import Path

import pytest

from vocabkit.text.unicode import foreign_script

LOG = os.environ.get("VOCABKIT_DEMO_LOG")
pytestmark = pytest.mark.skipif(not LOG, reason="no $VOCABKIT_DEMO_LOG: run ./demo.sh > demo.log first")
QUESTION = "Translate following sentence into Chinese: tôi tên là Lý Quốc Dân"


@pytest.fixture(scope="module")
def log() -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", Path(str(LOG)).read_text(encoding="utf-8"))


def test_both_models_answer_as_promised(log):
    answers = re.findall(r"^Bot: (.*)$", log, flags=re.MULTILINE)
    assert f"Bạn: {QUESTION}" in log
    assert answers == ["我的名字是李国民", "My name is Ly Quoc Dan."]
    assert not any(foreign_script(char) for char in answers[1])


def test_every_check_holds(log):
    steps = re.findall(r"^(\w+) +(\d) (\w+)", log, flags=re.MULTILINE)
    verified = [(state, name) for state, _, name in steps]
    assert verified.count(("ok", "tokenizer")) == 2  # when written, and by verify_edit
    assert ("ok", "logits") in verified and ("ok", "cost") in verified
    assert not [name for state, name in verified if state == "FAILED"]


def test_table(log):
    tokens, rows = (
        [
            int(n.replace(",", ""))
            for n in re.search(rf"^{name} +([\d,]+) +([\d,]+)", log, re.MULTILINE).groups()
        ]
        for name in ("tokens", "rows")
    )
    assert tokens[1] < tokens[0] < rows[0] and tokens[1] <= rows[1] < rows[0] and rows[1] % 64 == 0
    assert re.search(r"^encoded differently +0$", log, re.MULTILINE)
    assert re.search(r"^decoded differently +0$", log, re.MULTILINE)
    assert float(re.search(r"^max \|Δ logit\| +(\S+)", log, re.MULTILINE).group(1)) < 1e-3
    assert re.search(r"^greedy tokens/s", log, re.MULTILINE)
