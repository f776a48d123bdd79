"""A folder and its GGUF file answer alike: what every Backend must do, asked of both with the demo model."""

import threading
from dataclasses import replace

import pytest
from chatting import GREEDY

from vocabkit.chat.avoid import Avoider
from vocabkit.chat.backends import Sampling
from vocabkit.errors import UserError

SHORT = replace(GREEDY, max_new_tokens=12)


@pytest.fixture(params=["demo", "demo_llama"], ids=["folder", "gguf"])
def backend(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def prompt(backend):
    return backend.encode([{"role": "user", "content": "Xin chào!"}])


def test_the_text_of_ids_is_that_of_its_pieces(backend, prompt):
    plain = list(backend.generate(prompt, SHORT))
    assert backend.decode(plain) == "".join(backend.text(plain)) != ""


def test_a_folder_and_its_file_agree(demo, demo_llama):
    messages = [
        {"role": "user", "content": "Xin chào!"},
        {"role": "assistant", "content": "Chào bạn."},
        {"role": "user", "content": "Bạn là ai?"},
    ]
    prompt = demo.encode(messages)
    assert prompt == demo_llama.encode(messages)
    assert list(demo.generate(prompt, SHORT)) == list(demo_llama.generate(prompt, SHORT))
    assert demo.context == demo_llama.context
    assert demo.without_template is demo_llama.without_template is None


def test_phrases_are_avoided(backend, prompt):
    plain = list(backend.generate(prompt, SHORT))
    nothing = Avoider(["zzz"], backend.decode)
    assert list(backend.generate(prompt, SHORT, avoider=nothing)) == plain
    phrase = backend.decode(plain)[2:6]
    avoided = list(backend.generate(prompt, SHORT, avoider=Avoider([phrase], backend.decode)))
    assert phrase not in backend.decode(avoided)


def test_ids_that_are_never_chosen(backend, prompt):
    plain = list(backend.generate(prompt, SHORT))
    for sampling in (SHORT, replace(SHORT, temperature=2.0, seed=1)):
        assert plain[0] not in list(backend.generate(prompt, sampling, never=plain[:1]))


def test_the_same_seed_gives_the_same_answer(backend):
    wild, prompt = Sampling(temperature=2.0, top_p=1.0, top_k=0, max_new_tokens=8), [5, 6, 7]
    seeds = [1, 2, 3, 1, 2, 3]
    answers = [tuple(backend.generate(prompt, replace(wild, seed=seed))) for seed in seeds]
    assert answers[:3] == answers[3:] and len(set(answers)) > 1


def test_a_set_stop_ends_the_answer(backend, prompt):
    stop = threading.Event()
    stop.set()
    assert len(list(backend.generate(prompt, GREEDY, stop=stop))) <= 1  # the token that was being made


def test_an_empty_prompt_is_refused(backend):
    with pytest.raises(UserError, match="the prompt is empty"):
        list(backend.generate([], GREEDY))
