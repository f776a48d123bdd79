"""The token that a text begins with, chosen by measurement.

Reads a folder's settings and the bundled texts; writes nothing. What a checkpoint names bos_token need not be
what its texts began with: SmolLM2-Instruct names the token that opens a turn of a chat, after which plain
text costs more than after its <|endoftext|>. Training and measuring begin texts with the same token.
"""

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vocabkit.checkpoint.folder import DOCUMENT_ENDS, start_token
from vocabkit.files import SELF_TEST_TEXTS, read_json_object, text_lines
from vocabkit.tokenizer.encoder import load_encoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LINES = (0, 1, 5, 7, 8, 9, 10, 11)  # of the bundled texts: plain sentences of both languages
BETTER = 0.99  # of the named token's bits per byte: what is less is no mere chance


def text_start(model: Any, folder: Path, *, named: int | None = None) -> int:
    """Return the id after which plain text costs the model least, of those that its folder names.

    The named one (None: of start_token()) stays unless another is clearly better, and in a model that only
    guesses. Prints what it chose where that is another.
    """
    named = start_token(folder) if named is None else named
    encoder = load_encoder(folder)
    candidates = _candidates(folder, named, encoder)
    if model.config.is_encoder_decoder or len(candidates) == 1:
        return named
    lines = [line for number, (_, line) in enumerate(text_lines(SELF_TEST_TEXTS)) if number in LINES]
    texts = [encoder.encode(line.strip(), add_special_tokens=False).ids for line in lines]
    nats = {start: sum(_nats(model, start, ids) for ids in texts) for start in candidates}
    best = min(nats, key=nats.__getitem__)
    guess = math.log(model.get_input_embeddings().weight.shape[0]) * sum(map(len, texts))
    if nats[best] > min(BETTER * nats[named], guess):
        return named
    size = sum(len(line.strip().encode("utf-8")) for line in lines) * math.log(2)
    print(
        f"texts begin with {encoder.id_to_token(best)!r}: {nats[best] / size:.3f} bits per byte, after "
        f"{encoder.id_to_token(named)!r} {nats[named] / size:.3f}"
    )
    return best


def _candidates(folder: Path, named: int, encoder: "Tokenizer") -> list[int]:
    """The named start, the ends that the settings name, and what stands between documents; each once."""
    found = [named, *(encoder.token_to_id(token) for token in DOCUMENT_ENDS)]
    for name, key in itertools.product(
        ("config.json", "generation_config.json"), ("bos_token_id", "eos_token_id")
    ):
        value = read_json_object(folder / name, missing_ok=True).get(key)
        found += value if isinstance(value, list) else [value]
    return list(dict.fromkeys(token for token in found if isinstance(token, int)))


@torch.inference_mode()
def _nats(model: Any, start: int, ids: list[int]) -> float:
    inputs = torch.tensor([[start, *ids]], device=model.device)
    training = model.training
    logits = model.eval()(input_ids=inputs[:, :-1], use_cache=False).logits[0].float()
    model.train(training)
    chosen = logits.gather(1, inputs[0, 1:, None])[:, 0]
    return float((logits.logsumexp(1) - chosen).sum())
