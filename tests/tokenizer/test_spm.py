"""vocabkit/tokenizer/spm.py: trimmed SentencePiece files, run by sentencepiece itself."""

import sys

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tiny import SENTENCES, model_of, open_folder, replay, train_spm, trim_files

from vocabkit.errors import UserError
from vocabkit.tokenizer import bpe, spm
from vocabkit.vocab.plan import close_ids

SPM_NAMES = ["gemma-2-it", "t5-v1_1", "SYNTHETIC-mt5-like-32k"]


def run(model) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def only(folder):
    """A folder's only SentencePiece file: its name and ModelProto."""
    ((name, model),) = folder.spm_models.items()
    return name, model


# Reading


def test_read_spm_refuses_what_is_no_model(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\xff\xff\xffnot a model")
    with pytest.raises(UserError, match="tokenizer.model is not a SentencePiece model"):
        spm.read_spm(path)


@pytest.mark.parametrize("model_type, name", [(3, "WORD"), (4, "CHAR")])
def test_read_spm_refuses_word_and_char_models(tmp_path, model_type, name):
    path = tmp_path / "spiece.model"
    path.write_bytes(model_of([("<unk>", 0, 2), ("a", -1, 1)], model_type=model_type).SerializeToString())
    with pytest.raises(UserError, match=f"has 2 pieces of model type {model_type}, expected Unigram"):
        spm.read_spm(path)


def test_read_spm_refuses_an_empty_model(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(b"")
    with pytest.raises(UserError, match="has 0 pieces"):
        spm.read_spm(path)


def test_read_spm_refuses_unused_pieces(tmp_path):
    path = tmp_path / "tokenizer.model"
    pieces = [("<unk>", 0.0, 2), ("a", -1.0, 1), ("ab", -2.0, spm.UNUSED)]
    path.write_bytes(model_of(pieces).SerializeToString())
    with pytest.raises(UserError, match="has 1 pieces of type UNUSED, such as 'ab'"):
        spm.read_spm(path)


def test_read_spm_names_the_packages_it_needs(tiny, monkeypatch):
    path = tiny("gemma").path / "tokenizer.model"
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # as if it were not installed
    with pytest.raises(
        UserError, match="tokenizer.model needs two packages.*pip install sentencepiece protobuf"
    ):
        spm.read_spm(path)


def test_read_spm_forgets_unknown_fields(tiny, tmp_path):
    """Old files hold self-tests in fields that the format has dropped; after trimming they would fail."""
    path = tmp_path / "spiece.model"
    original = (tiny("t5").path / "spiece.model").read_bytes()
    path.write_bytes(original + bytes([0x9A, 0x06, 1]) + b"x")  # field 99, one byte long
    assert spm.read_spm(path).SerializeToString() == tiny("t5").spm_models["spiece.model"].SerializeToString()


def test_piece_tokens_names_a_piece_that_tokenizer_json_lacks(tiny):
    folder = tiny("gemma")
    name, model = only(folder)
    vocab = {token: i for token, i in folder.tokenizer.vocab.items() if token != "<0x41>"}
    with pytest.raises(
        UserError, match="tokenizer.model has the piece '<0x41>', which tokenizer.json.*lacks"
    ):
        spm.piece_tokens(model, path=folder.path / name, vocab=vocab)


def test_piece_tokens_know_the_literal_tab(tiny):
    folder = tiny("gemma")
    name, model = only(folder)
    assert "<0x09>" not in folder.tokenizer.vocab
    ids = spm.piece_tokens(model, path=folder.path / name, vocab=folder.tokenizer.vocab)
    assert ids == list(range(len(model.pieces)))


# Scores


@given(
    st.lists(st.text("abc", min_size=2, max_size=5), unique=True, max_size=14),
    st.lists(st.text("abc", min_size=1, max_size=12), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_spm_ranks_merge_as_sentencepiece_does(longer, texts, choose):
    """Any two parts whose product is a piece may merge, the best score first."""
    choose.shuffle(longer)
    pieces = [
        ("<unk>", 0.0, spm.UNKNOWN),
        *((token, -float(at), spm.NORMAL) for at, token in enumerate(longer)),
    ]
    pieces += [(char, -100.0, spm.NORMAL) for char in "abc"]
    model = model_of(pieces)
    rank_of = bpe.spm_ranks(spm.normal_scores(model))
    processor = run(model)
    for text in [*texts, *longer]:
        assert replay(text, bpe.derivation(text, rank_of)) == processor.encode(text, out_type=str)


@given(st.data())
def test_theorem_under_scores(data):
    """The same theorem for tokenizer.model: closed under scores, covered texts keep their pieces."""
    longer = data.draw(st.lists(st.text("abc", min_size=2, max_size=5), unique=True, max_size=14))
    pieces = [
        ("<unk>", 0.0, spm.UNKNOWN),
        *((token, -float(at), spm.NORMAL) for at, token in enumerate(longer)),
    ]
    model = model_of(pieces + [(char, -100.0, spm.NORMAL) for char in "abc"])
    wanted = {"a", "b", "c"} | (data.draw(st.sets(st.sampled_from(longer))) if longer else set())
    scores = spm.normal_scores(model)
    kept = bpe.closure(wanted, bpe.spm_ranks(scores)) & scores.keys()
    positions = [at for at, piece in enumerate(model.pieces) if at == 0 or piece.piece in kept]
    old = run(model)
    new = sentencepiece.SentencePieceProcessor(model_proto=spm.select_pieces(model, positions))
    for text in [*data.draw(st.lists(st.text("abc", max_size=12), max_size=5)), *longer]:
        before = old.encode(text)
        if set(positions) >= set(before):
            assert [positions[i] for i in new.encode(text)] == before
        assert new.decode(new.encode(text)) == text


def test_closure_is_under_merges_and_scores(tmp_path):
    """tokenizer.json makes "abc" as ab + c, tokenizer.model (llama.cpp) as a + bc: both parts stay."""
    ranks = bpe.rank_merges([("a", "b"), ("ab", "c"), ("b", "c"), ("a", "bc")])
    scores = {"bc": -1.0, "ab": -2.0, "abc": -3.0, "a": -9.0, "b": -9.0, "c": -9.0}
    assert bpe.closure({"abc"}, ranks.get) == {"abc", "ab", "a", "b", "c"}
    assert bpe.closure({"abc"}, bpe.spm_ranks(scores)) == {"abc", "bc", "a", "b", "c"}


def test_close_ids_adds_what_either_file_needs(tiny):
    folder = tiny("gemma")
    _, model = only(folder)
    choose = [i for i in range(270, len(folder.tokenizer.tokens), 5)]
    closed = close_ids(folder.tokenizer, choose, folder.spm_models.values())
    names = {folder.tokenizer.tokens[i] for i in closed}
    for order in (bpe.rank_merges(folder.tokenizer.merges).get, bpe.spm_ranks(spm.normal_scores(model))):
        assert bpe.closure(names, order) & folder.tokenizer.vocab.keys() == names


# Selecting


def test_required_pieces_by_hand():
    pieces = [("<unk>", 0.0, spm.UNKNOWN), ("<s>", 0.0, spm.CONTROL), ("a", -1.0, spm.NORMAL)]
    pieces += [("b", -7.0, spm.NORMAL), ("c", -3.0, spm.NORMAL), ("<x>", 0.0, spm.USER_DEFINED)]
    pieces += [("<0x41>", 0.0, spm.BYTE)]
    assert spm.required_pieces(model_of(pieces, model_type=spm.UNIGRAM)) == {0, 1, 2, 3, 5, 6}
    assert spm.required_pieces(model_of(pieces, model_type=spm.BPE)) == {0, 1, 5, 6}
    assert spm.required_pieces(model_of(pieces[:2], model_type=spm.UNIGRAM)) == {0, 1}


def test_select_pieces_renumbers_the_special_ids():
    model = train_spm("unigram", vocab_size=120, unk_id=5, bos_id=7, eos_id=9, pad_id=-1)
    positions = [5, 7, 9, *range(40, 90)]
    trimmed = sentencepiece_model_pb2.ModelProto()
    trimmed.ParseFromString(spm.select_pieces(model, positions))
    spec = trimmed.trainer_spec
    assert (spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id, spec.vocab_size) == (0, 1, 2, -1, 53)
    assert [piece.piece for piece in trimmed.pieces] == [model.pieces[at].piece for at in positions]
    processor = run(trimmed)
    assert (processor.unk_id(), processor.bos_id(), processor.eos_id(), processor.pad_id()) == (0, 1, 2, -1)
    assert trimmed.normalizer_spec == model.normalizer_spec


def test_select_pieces_of_all_changes_nothing(tiny):
    for kind in ("gemma", "t5"):
        _, model = only(tiny(kind))
        assert spm.select_pieces(model, list(range(len(model.pieces)))) == model.SerializeToString(
            deterministic=True
        )


def check_both_files(trimmed, texts: list[str]) -> tuple[int, int]:
    """Assert that the trimmed SentencePiece file gives the mapped pieces on covered texts.

    And that it agrees with the trimmed tokenizer.json wherever the two files of the base agree. Returns how
    many texts were covered, and of these how many had agreeing files.
    """
    (_, old_model), (_, new_model) = only(trimmed.base), only(trimmed.out)
    old, new = run(old_model), run(new_model)
    covered = agreeing = 0
    for text in texts:
        before = old.encode(text)
        if not trimmed.covers(before):
            continue
        covered += 1
        after = new.encode(text)
        assert after == trimmed.map(before), text
        if trimmed.base.encode(text) == before:
            agreeing += 1
            assert trimmed.out.encode(text) == after, text
    return covered, agreeing


@pytest.mark.parametrize("kind", ["gemma", "t5"])
def test_both_tiny_files(tiny, tmp_path, kind):
    base = tiny(kind)
    used = {i for text in SENTENCES[:4] for i in base.encode(text)}
    trimmed = trim_files(base, tmp_path / "out", base.plan(used))
    assert trimmed.plan.n_tokens < len(base.tokenizer.tokens)
    words = sorted({word for text in SENTENCES for word in text.split(" ")})
    covered, agreeing = check_both_files(trimmed, SENTENCES + words)
    assert 4 <= covered < len(SENTENCES + words) and agreeing == covered


@pytest.mark.assets
@pytest.mark.parametrize("name", SPM_NAMES)
def test_both_real_files(real_trimmed, documents, home_texts, name):
    trimmed = real_trimmed(name)
    lines = [line for text in documents + home_texts for line in text.splitlines() if line]
    covered, agreeing = check_both_files(trimmed, lines)
    assert covered > 1500
    assert agreeing > 0.99 * covered


@pytest.mark.assets
def test_real_pieces_stand_for_the_same_tokens(real_trimmed):
    """After trimming, a piece's position still is its id in tokenizer.json; Gemma's tab still is byte 9."""
    for name in SPM_NAMES:
        out = real_trimmed(name).out
        file_name, model = only(out)
        ids = spm.piece_tokens(model, path=out.path / file_name, vocab=out.tokenizer.vocab)
        assert ids == list(range(len(ids)))
    gemma = real_trimmed("gemma-2-it").out
    assert gemma.tokenizer.tokens[run(only(gemma)[1]).piece_to_id("<0x09>")] == "\t"


def test_a_file_of_another_tokenizer_is_refused(tiny, tiny_copy):
    path = tiny_copy("gemma")
    (path / "tokenizer.model").write_bytes((tiny("t5").path / "spiece.model").read_bytes())
    with pytest.raises(UserError, match="belong to different tokenizers"):
        _ = open_folder(path).required
