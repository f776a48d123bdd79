"""--only_scripts: the promise of trimming kept by masking tokens of a tokenizer that was not trimmed."""

from pathlib import Path

import pytest
from chatting import DEMO, GREEDY, INTO_CHINESE

from vocabkit.chat.backends import Sampling
from vocabkit.chat.only_scripts import forbidden_ids, read_scripts, tokenizer_of
from vocabkit.errors import UserError
from vocabkit.text.unicode import first_foreign
from vocabkit.text.utf8 import tail_of

LATIN = read_scripts(["Latin"])


def test_scripts_by_name():
    assert read_scripts(["Latin", "greek"]) == {"Common", "Inherited", "Latin", "Greek"}
    with pytest.raises(UserError, match="--only_scripts Klingon: no script of Unicode"):
        read_scripts(["Klingon"])


@pytest.mark.parametrize("kind", ["qwen", "gemma"])
def test_no_row_of_tokens_spells_a_foreign_character(tiny, kind):
    """Whatever allowed tokens stand one after another: no pair of them makes one."""
    tokenizer = tiny(kind).tokenizer
    forbidden = set(forbidden_ids(tokenizer, LATIN))
    kept = [data for i, data in tokenizer.token_bytes.items() if i not in forbidden]
    added = set(tokenizer.added.values())
    assert not forbidden & added and forbidden
    starts = {data[:3] for data in kept}
    for data in kept:
        if data.decode("utf-8", "ignore").startswith("<"):
            continue
        for start in starts:
            joined = (tail_of(data) + start).decode("utf-8", "ignore")
            assert first_foreign(joined, LATIN) is None, (data, start)


def test_a_model_that_wants_chinese_writes_none(demo):
    never = forbidden_ids(tokenizer_of(Path(demo.path)), LATIN)
    asked = demo.encode([{"role": "user", "content": INTO_CHINESE}])
    assert first_foreign(demo.decode(list(demo.generate(asked, GREEDY)))) == "Han"
    for sampling in (GREEDY, Sampling(temperature=1.0, seed=1)):
        masked = demo.decode(list(demo.generate(asked, sampling, never=never)))
        assert masked and first_foreign(masked) is None


def test_a_file_forbids_what_its_folder_forbids(demo_file):
    assert forbidden_ids(tokenizer_of(demo_file), LATIN) == forbidden_ids(tokenizer_of(DEMO), LATIN)
