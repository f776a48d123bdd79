"""A folder that answers, on tiny checkpoints: phrases take its answer and its cache back."""

from dataclasses import replace

import build
import pytest
import torch

from vocabkit.chat.avoid import Avoider
from vocabkit.chat.backends import GREEDY, Sampling
from vocabkit.chat.transformers_backend import TransformersBackend
from vocabkit.errors import UserError

WILD = Sampling(temperature=1.5, seed=3)


@pytest.fixture(scope="module", params=["qwen2", "gemma2"])
def family(request, tmp_path_factory) -> TransformersBackend:
    folder = build.make_checkpoint(tmp_path_factory.mktemp(request.param) / "m", request.param)
    return TransformersBackend.open(str(folder))


PROMPT = "Tôi sống ở Hà Nội"


def ask(backend: TransformersBackend, phrases: list[str], sampling: Sampling) -> list[int]:
    def decode(ids):
        return backend.tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    avoider = Avoider(phrases, decode) if phrases else None
    sampling = replace(sampling, max_new_tokens=40)
    return list(backend.generate(backend.tokenizer(PROMPT).input_ids, sampling, avoider=avoider))


@pytest.mark.parametrize("sampling", [GREEDY, WILD])
def test_nothing_changes_where_nothing_is_hit(family, sampling):
    assert ask(family, ["a phrase that is never said"], sampling) == ask(family, [], sampling)


@pytest.mark.parametrize("sampling", [GREEDY, WILD])
def test_the_cache_goes_back_with_the_answer(family, sampling):
    """The first phrase is taken out of the plain answer; what follows is what the model says after the other
    token, computed without any cache.
    """
    model, tokenizer = family.model, family.tokenizer
    plain = ask(family, [], sampling)
    text = tokenizer.decode(plain, clean_up_tokenization_spaces=False)
    phrase = text[len(text) // 2 : len(text) // 2 + 4]
    avoided = ask(family, [phrase], sampling)
    assert phrase not in tokenizer.decode(avoided, clean_up_tokenization_spaces=False)
    assert len(avoided) == 40
    if sampling is GREEDY:
        start = next(at for at, (a, b) in enumerate(zip(plain, avoided, strict=False)) if a != b)
        ids = tokenizer(PROMPT).input_ids
        for at in range(start + 1, start + 6):
            with torch.inference_mode():
                logits = model(torch.tensor([ids + avoided[:at]]), use_cache=False).logits[0, -1]
            assert avoided[at] in logits.topk(3).indices.tolist()
            if phrase[0] not in tokenizer.decode([int(logits.argmax())]):
                assert avoided[at] == int(logits.argmax()) or len(phrase) > 1


def test_the_same_seed_gives_the_same_answer(family):
    answers = [ask(family, ["a", "o"], Sampling(temperature=2.0, seed=5)) for _ in range(2)]
    assert answers[0] == answers[1]


def test_encoder_decoders_cannot_go_back(tmp_path):
    folder = build.make_checkpoint(tmp_path / "m", "t5")
    with pytest.raises(UserError, match="needs a decoder alone"):
        ask(TransformersBackend.open(str(folder)), ["a"], GREEDY)
