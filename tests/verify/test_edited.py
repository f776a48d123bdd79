"""vocabkit/verify/edited.py: folders that are no edited folder and its base are refused."""

import pytest
from tiny import edit_json

from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.verify.edited import open_edited
from vocabkit.verify.ladder import verify_edit


def test_another_base_is_refused(pair, checkpoint):
    source, out = pair
    other = checkpoint("llama")
    with pytest.raises(UserError, match="was made from"):
        open_edited(other, out)
    with pytest.raises(UserError, match="vocab_edit.json is missing"):
        open_edited(source, other)


def test_new_tokens_that_nobody_names(extended):
    source, out = extended
    edit_json(out / "vocab_edit.json", words=["hôm▁nay"])
    with pytest.raises(UserError, match="names 1 words and 0 syllables, but 2 tokens are new"):
        verify_edit(source, out)


def test_a_checkpoint_with_other_rows_than_its_config_is_opened_no_further(pair):
    source, out = pair
    edit_json(out / "config.json", vocab_size=read_json(out / "config.json")["vocab_size"] + 64)
    with pytest.raises(UserError, match="says vocab_size"):
        verify_edit(source, out)
