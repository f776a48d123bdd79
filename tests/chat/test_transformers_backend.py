"""A folder that answers, on tiny checkpoints: phrases take its answer and its cache back."""

import json
import threading
from dataclasses import replace

import build
import pytest
import torch
from chatting import GREEDY, rewrite, save_t5

from vocabkit.chat.avoid import Avoider
from vocabkit.chat.backends import Sampling
from vocabkit.chat.transformers_backend import TransformersBackend
from vocabkit.errors import UserError
from vocabkit.models.load import context_length, load_model, load_tokenizer, prompt_ids

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


# Generating


@pytest.fixture(scope="session")
def loaded(chat_model):
    return load_model(chat_model), load_tokenizer(chat_model)


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


def generate(model, tokenizer, prompt, *, stop=None, **sampling):
    return TransformersBackend("m", model, tokenizer).generate(prompt, Sampling(**sampling), stop=stop)


def test_generate_equals_transformers(loaded):
    model, tokenizer = loaded
    messages = [{"role": "user", "content": "Xin chào"}]
    ids = prompt_ids(model, tokenizer, messages)
    assert tokenizer.decode(ids) == "<|im_start|>user\nXin chào<|im_end|>\n<|im_start|>assistant\n"
    whole = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=25)[0, len(ids) :].tolist()
    wanted = [i for i in whole if i != tokenizer.eos_token_id]
    assert list(generate(model, tokenizer, ids, temperature=0.0, max_new_tokens=25)) == wanted


def test_generate_honours_generation_config(chat_copy):
    """End tokens come from the list, suppressed ids never appear, the folder's sampling can be turned off."""
    free = load_model(chat_copy)
    tokenizer = load_tokenizer(chat_copy)
    prompt = tokenizer("Xin chào")["input_ids"]
    answer = list(generate(free, tokenizer, prompt, temperature=0.0, max_new_tokens=12))
    end = next(i for i in answer[3:] if i not in answer[:3])
    rewrite(
        chat_copy / "generation_config.json",
        eos_token_id=[tokenizer.eos_token_id, end],
        do_sample=True,
        top_k=3,
    )
    ended = load_model(chat_copy)
    assert list(generate(ended, tokenizer, prompt, temperature=0.0)) == answer[: answer.index(end)]
    suppressed = json.loads((chat_copy / "generation_config.json").read_text())["suppress_tokens"]
    rewrite(chat_copy / "generation_config.json", suppress_tokens=[*suppressed, answer[0]])
    silent = load_model(chat_copy)
    assert answer[0] not in list(generate(silent, tokenizer, prompt, temperature=5.0, max_new_tokens=60))


def test_generate_seed(loaded):
    model, tokenizer = loaded
    prompt = tokenizer("Xin")["input_ids"]
    one, two, other = (
        list(generate(model, tokenizer, prompt, temperature=3.0, max_new_tokens=20, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == two != other


def test_generate_stops(chat_copy):
    rewrite(chat_copy / "generation_config.json", eos_token_id=None)
    model, tokenizer = load_model(chat_copy), load_tokenizer(chat_copy)
    tokenizer.eos_token = None
    stop = threading.Event()
    n = 0
    for _ in generate(model, tokenizer, [5, 6], max_new_tokens=100_000, stop=stop):
        n += 1
        if n == 3:
            stop.set()
    assert n < 500
    answer = generate(model, tokenizer, [5, 6], max_new_tokens=100_000)
    next(answer)
    answer.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "generate"]


def test_generate_errors(loaded):
    model, tokenizer = loaded
    with pytest.raises(UserError, match="the tokenizer gives id 384 but the model has 384 rows"):
        generate(model, tokenizer, [384])
    with pytest.raises(UserError, match="prompt is empty"):
        generate(model, tokenizer, [])
    with pytest.raises(ValueError):  # of transformers, raised in the other thread
        list(generate(model, tokenizer, [5], temperature=-1.0))


def test_t5_is_plain_seq2seq(tmp_path):
    model, tokenizer = load_model(save_t5(tmp_path / "t5")), load_tokenizer(tmp_path / "t5")
    history = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    ids = prompt_ids(model, tokenizer, history)
    assert ids == encode(tokenizer, "system\nuser") and ids[-1] == tokenizer.eos_token_id
    whole = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=9)[0, 1:].tolist()
    wanted = [i for i in whole if i != tokenizer.eos_token_id]
    assert list(generate(model, tokenizer, ids, temperature=0.0, max_new_tokens=9)) == wanted
    assert context_length(model) is None
