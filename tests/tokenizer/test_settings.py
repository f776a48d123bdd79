"""vocabkit/tokenizer/settings.py: which fields hold token ids, and what becomes of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabkit.errors import UserError
from vocabkit.tokenizer.settings import (
    ID_FIELD,
    ID_LISTS,
    collect_ids,
    map_ids,
    own_bans,
    renumber,
    replace_vocab_size,
    vocab_size_of,
    without_lost_bans,
)

PATH = Path("model/config.json")
# Every kind of field that transformers writes ids into, ids 1 to 37 in order
SETTINGS = {
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "pad_token_id": 4,
    "decoder_start_token_id": 5,
    "forced_bos_token_id": 6,
    "forced_eos_token_id": [7, 8],
    "forced_decoder_ids": [[1, 9], [2, None], [3, [10, 11]]],
    "suppress_tokens": [12, 13, -1],
    "begin_suppress_tokens": [14],
    "bad_words_ids": [[15], [16, 17]],
    "force_words_ids": [[[18, 19], [20]], [21]],
    "sequence_bias": [[[22, 23], -5.0], [[24], 2.5]],
    "lang_to_id": {"<|vi|>": 25},
    "task_to_id": {"translate": 26},
    "stop_token_ids": [27],
    "image_token_index": 28,
    "video_token_idx": 29,
    "sep_token_id": 30,
    "cls_token_id": 31,
    "mask_token_id": 32,
    "unk_id": 33,
    "text_config": {"bos_token_id": 34, "decoder": {"eos_token_id": [35]}},
    "added_tokens_decoder": {"36": {"content": "<x>"}, "37": {"content": "<y>"}},
}
# Numbers that are no token ids, even where the name or the value looks alike
OTHERS = {
    "vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 2, "speaker_id": 3, "pad_token": "<pad>",
    "num_return_sequences": 1, "layer_ids": [1, 2], "head_index": 4, "forced_decoder_ids": None,
    "eos_token_id": None, "add_bos_token": True, "pad_token_id": -1, "max_length": 20, "temperature": 0.7,
    "additional_special_tokens": ["<x>"], "sequence_bias": None, "suppress_tokens": None,
    "mask_token_id": False,
}  # fmt: skip


def test_every_id_is_found_and_nothing_else():
    assert sorted(collect_ids(SETTINGS)) == list(range(1, 38))
    assert collect_ids(OTHERS) == {}


def test_collect_ids_names_the_field():
    found = collect_ids({"a": [{"text_config": {"eos_token_id": [5]}}], "pad_token_id": 5, "bos_token_id": 6})
    assert found == {5: "a[0].text_config.eos_token_id", 6: "bos_token_id"}


def test_every_id_is_renumbered_in_place():
    shifted = renumber(SETTINGS, {old: old + 100 for old in range(1, 38)}, path=PATH)
    assert collect_ids(shifted).keys() == set(range(101, 138))
    assert shifted["eos_token_id"] == [102, 103]
    assert shifted["forced_decoder_ids"] == [[1, 109], [2, None], [3, [110, 111]]]  # positions stay
    assert shifted["suppress_tokens"] == [112, 113, -1]
    assert shifted["sequence_bias"] == [[[122, 123], -5.0], [[124], 2.5]]
    assert shifted["added_tokens_decoder"] == {"136": {"content": "<x>"}, "137": {"content": "<y>"}}
    assert shifted["text_config"]["decoder"] == {"eos_token_id": [135]}
    assert renumber(OTHERS, {}, path=PATH) == OTHERS
    assert collect_ids(SETTINGS).keys() == set(range(1, 38))  # the argument is as it was


@pytest.mark.parametrize("lost", range(1, 38))
def test_an_id_without_a_token_is_an_error_that_names_it(lost):
    old_to_new = {old: old for old in range(1, 38) if old != lost}
    where = collect_ids(SETTINGS)[lost]
    with pytest.raises(UserError) as error:
        renumber(SETTINGS, old_to_new, path=PATH)
    assert f"{PATH}: {where} names id {lost}," in str(error.value)
    assert "kept list" in str(error.value)


@given(
    st.recursive(st.none() | st.just(False) | st.integers(), st.lists, max_leaves=8)
    | st.booleans() | st.text(),
    st.sampled_from(["eos_token_id", "suppress_tokens"]) | st.text(),
)  # fmt: skip
def test_identity_changes_nothing(value, name):
    if name == "added_tokens_decoder" or value and name in ("forced_decoder_ids", "sequence_bias"):
        return  # these have a form of their own
    if (ID_FIELD.fullmatch(name) or name in ID_LISTS) and (value is True or isinstance(value, str)):
        return  # no ids
    assert map_ids({name: value}, lambda old, where: old) == {name: value}


def test_added_tokens_decoder_needs_numbers():
    with pytest.raises(UserError, match="added_tokens_decoder has the key 'x', expected a token id"):
        collect_ids({"added_tokens_decoder": {"x": {}}})


@pytest.mark.parametrize("value", ["5248", 5248.0, True, "", [7, "8"], {"<|vi|>": 7.5}, [[1, [2.0]]]])
@pytest.mark.parametrize("name", ["eos_token_id", "image_token_index", "suppress_tokens", "bad_words_ids"])
def test_what_is_no_integer_is_no_id(name, value):
    with pytest.raises(UserError, match=rf"^model/config.json: a.{name} is .*, expected a token id"):
        collect_ids({"a": {name: value}}, path=PATH)
    with pytest.raises(UserError, match=rf"^model/config.json: {name} is .*, expected a token id"):
        renumber({name: value}, {1: 1, 7: 7}, path=PATH)


@pytest.mark.parametrize("key", ["07", "7.0", " 7", "٧", "-1", "²"])
def test_a_key_that_is_no_integer_is_no_id(key):
    with pytest.raises(UserError, match="added_tokens_decoder has the key"):
        collect_ids({"added_tokens_decoder": {key: {}}})


@pytest.mark.parametrize("value", [[5], [[1, 2, 3]], {"7": -1.0}, "x"])
@pytest.mark.parametrize("name", ["forced_decoder_ids", "sequence_bias"])
def test_pairs_of_another_shape_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is no list of pairs"):
        collect_ids({name: value})


def test_vocab_size_of():
    assert vocab_size_of({"vocab_size": 7, "text_config": {"vocab_size": 9}}, path=PATH) == 7
    for part in ("text_config", "llm_config", "language_config"):
        assert vocab_size_of({"model_type": "x", part: {"vocab_size": 9}}, path=PATH) == 9
    for config in ({}, {"vocab_size": "9"}, {"text_config": None}, {"text_config": {"hidden_size": 9}}):
        with pytest.raises(UserError, match="config.json has no vocab_size"):
            vocab_size_of(config, path=PATH)


def test_replace_vocab_size_only_where_it_is_the_old_one():
    config = {
        "vocab_size": 9,
        "text_config": {"vocab_size": 9},
        "vision": {"vocab_size": 4},
        "hidden_size": 9,
    }
    assert replace_vocab_size(config, old=9, new=5) == {
        "vocab_size": 5, "text_config": {"vocab_size": 5}, "vision": {"vocab_size": 4}, "hidden_size": 9,
    }  # fmt: skip


def test_bans_of_tokens_that_go_are_dropped_and_the_others_stay():
    """Each kind of ban, in nested settings too; a positive bias and forced ids are wishes, no bans."""
    settings = {
        "suppress_tokens": [1, 2, -1],
        "begin_suppress_tokens": [2],
        "bad_words_ids": [[1], [1, 2], [2]],
        "sequence_bias": [[[1, 2], -5.0], [[2], 2.5], [[1], -1.0]],
        "lang_to_id": {"<|vi|>": 1, "<|zh|>": 2},
        "eos_token_id": [2],
        "forced_decoder_ids": [[1, 2]],
        "temperature": 0.0,
        "text_config": {"suppress_tokens": [2, 1]},
    }
    assert without_lost_bans(settings, {1}) == {
        "suppress_tokens": [1, -1],
        "bad_words_ids": [[1]],
        "sequence_bias": [[[2], 2.5], [[1], -1.0]],
        "lang_to_id": {"<|vi|>": 1},
        "eos_token_id": [2],
        "forced_decoder_ids": [[1, 2]],
        "temperature": 0.0,
        "text_config": {"suppress_tokens": [1]},
    }
    assert without_lost_bans(settings, {1, 2}) == settings
    assert collect_ids(without_lost_bans(settings, ())).keys() == {2}


@pytest.mark.parametrize(
    "listed, derived, left",
    [
        ([2, 6, 7, 8], (), [2]),  # 7 and 8 are padding; the added token 6 got a row of it
        ([2, 5, 7, 8], (), [2, 5]),  # 6 may be generated, so 5 is banned for a reason of its own
        ([2, 3, 4, 5, 6, 7], (), [2, 3]),  # 3 is no added token
        ([2, 5], (), [2, 5]),  # no padding at all
        ([2, 3, 5], {2}, [3, 5]),
        ([], (), []),
    ],
)
def test_bans_of_padding_do_not_outlive_it(listed, derived, left):
    assert own_bans(listed, range(7), {4, 5, 6}, derived=derived) == left
