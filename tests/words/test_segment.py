"""vocabkit/words/segment.py: what pyvi says, sentence by sentence."""

import math
import random

import pytest

from vocabkit.errors import UserError
from vocabkit.words.count import sentences
from vocabkit.words.segment import Segmenter, read_crf


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter()


def test_segmentation_equals_pyvi_on_the_corpora(assets, segmenter):
    from pyvi.ViTokenizer import ViTokenizer

    texts = {
        sentence
        for path in sorted((assets / "corpora").glob("[ve]*/*.t[xs][tv]"))
        for sentence in sentences(path.read_text(encoding="utf-8"))
    }
    sample = random.Random(1).sample(sorted(texts), 2500)
    sample = [segmenter._pyvi.sylabelize(text)[0] for text in sample]  # NFC, as the corpus reader gives them
    found = segmenter.tokenize(sample)
    for text, ours, theirs in zip(sample, found, map(ViTokenizer.tokenize, sample), strict=True):
        assert ours == theirs, text


STRANGE = [
    *(
        "",
        " ",
        "  a",
        "\t",
        "_",
        "ǅ",
        "…",
        "Học\tsinh",
        "học\u00a0sinh",
        "q\u0300uan",
        "Việt Nam",
        "việt  nam",
    ),
    *("v.v...", "A.B. C", "-> x ==> y", "http://a.b/c d", "a@b.cd", "1.000,5 đồng", "x_y học_sinh", "TP.HCM"),
]


def test_segmentation_equals_pyvi_on_strange_sentences(segmenter):
    """One by one and side by side: sentences do not touch each other in a batch."""
    from pyvi.ViTokenizer import ViTokenizer

    choose = random.Random(2).choices
    texts = STRANGE + [" ".join(choose(STRANGE, k=6)) for _ in range(300)]
    expected = [ViTokenizer.tokenize(text) for text in texts]
    assert segmenter.tokenize(texts) == expected
    assert [segmenter.tokenize([text])[0] for text in texts] == expected
    assert segmenter.tokenize([]) == []


def test_weights_are_those_of_the_tagger(segmenter):
    tagger = segmenter._pyvi.model.tagger_
    with open(segmenter._pyvi.model.modelfile.name, "rb") as file:
        states, _ = read_crf(file.read())
    for name, (outside, inside) in list(states.items())[:: len(states) // 50]:
        tagger.set([{name: 1.0}])
        share = tagger.probability(["I_W"])
        assert math.isclose(math.log(share / (1 - share)), inside - outside, abs_tol=1e-9)


@pytest.mark.parametrize("data", [b"", b"lCRF", b"\0" * 100])
def test_a_model_of_another_form_is_one_line(data):
    with pytest.raises(UserError, match="unknown form.*constraints.txt"):
        read_crf(data)


def test_a_pyvi_that_segments_otherwise_is_refused(monkeypatch):
    from pyvi.ViTokenizer import ViTokenizer

    monkeypatch.setattr(ViTokenizer, "tokenize", staticmethod(lambda text: text))
    with pytest.raises(UserError, match="segments otherwise"):
        Segmenter()
