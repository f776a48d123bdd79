"""Shrinking a closed set by leaves: by hand, closed at every size, never worse than cutting by count."""

import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabkit.errors import UserError
from vocabkit.vocab.leaves import parts_of, shrink

# a b c are atoms; ab = a b, abc = ab c, abcd needs ab, abc, d
PARTS = {
    0: set(),
    1: set(),
    2: set(),
    3: set(),
    10: {0, 1},
    11: {0, 1, 2, 10},
    12: {0, 1, 2, 3, 10, 11},
    13: {2},
}


def test_the_least_counted_leaf_goes_first_by_hand():
    counts = {10: 1, 11: 5, 12: 9, 13: 7, 0: 100, 1: 100, 2: 100, 3: 100}
    always = {0, 1, 2, 3}

    def left(size: int) -> set[int]:
        return shrink(set(PARTS), size, parts=PARTS, counts=counts, always=always) - always

    # 10 is counted least, but 11 and 12 are made from it; of the leaves 12 and 13, 13 is counted less.
    assert left(8) == {10, 11, 12, 13}
    assert left(7) == {10, 11, 12}
    assert left(6) == {10, 11}  # then 12 was the only leaf
    assert left(5) == {10}
    assert left(4) == set()


def test_of_equal_leaves_the_one_learned_last_goes():
    parts = {0: set(), 5: {0}, 6: {0}, 7: {0}}
    assert shrink(set(parts), 2, parts=parts, counts={}, always={0}) == {0, 5}


def test_impossible_targets_name_both_numbers():
    with pytest.raises(UserError, match="--target_size is 9, the rules keep 8 tokens"):
        shrink(set(PARTS), 9, parts=PARTS, counts={}, always=set())
    with pytest.raises(UserError, match="--target_size is 4, bytes.* are 5 tokens"):
        shrink(set(PARTS), 4, parts=PARTS, counts={}, always={0, 1, 2, 3, 10})


@given(counts=st.dictionaries(st.sampled_from(sorted(PARTS)), st.integers(0, 9)), size=st.integers(4, 8))
def test_left_is_closed_and_of_the_size_asked_for(counts, size):
    left = shrink(set(PARTS), size, parts=PARTS, counts=counts, always={0, 1, 2, 3})
    assert len(left) == size
    assert all(PARTS[token_id] <= left for token_id in left)


def test_on_real_counts_it_covers_at_least_as_much_as_cutting_by_count(assets, real):
    """Against the closure of all tokens above a count, at the sizes that come out of it."""
    folder = real("qwen2.5-instruct")
    tokenizer = folder.tokenizer
    (path,) = (assets / "token_counts" / "qwen2.5").iterdir()
    counts = {int(k): v for k, v in json.loads(lzma.decompress(path.read_bytes())).items()}
    everything = set(tokenizer.tokens)
    always = set(folder.plan([]).new_to_old)
    parts = parts_of(tokenizer, everything)

    def covered(ids: set[int]) -> int:
        return sum(counts.get(token_id, 0) for token_id in ids)

    for least in (3_000, 1_000_000):
        by_count = set(folder.plan(i for i in everything if counts.get(i, 0) >= least).new_to_old)
        left = shrink(everything, len(by_count), parts=parts, counts=counts, always=always)
        assert len(left) == len(by_count)
        assert all(parts[token_id] <= left for token_id in left), "closed"
        assert covered(left) >= covered(by_count)
    assert set(folder.plan(left).new_to_old) == left  # the smaller one, once more by the closure itself


@pytest.mark.slow
def test_parts_are_those_of_the_closure(tiny):
    for kind in ("qwen", "gemma", "t5"):
        folder = tiny(kind)
        tokenizer = folder.tokenizer
        always = set(folder.plan([]).new_to_old)
        parts = parts_of(tokenizer, tokenizer.tokens, folder.spm_models.values())
        for token_id in tokenizer.tokens:
            assert set(folder.plan([token_id]).new_to_old) >= always | parts[token_id] | {token_id}
            together = set().union(*(parts[part] for part in parts[token_id] | {token_id}))
            assert set(folder.plan([token_id]).new_to_old) == always | parts[token_id] | {token_id} | together
