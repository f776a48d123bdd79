"""Is an exported GGUF the folder it was made of? Asked before the file gets its name.

Reads both; writes nothing. Every tensor's bytes are made a second time and compared. Where llama-cpp-python
is installed its tokenizer encodes texts, the added tokens among them, as the folder's does; where torch is
too, and the model is small, the logits at a few places are compared with those of transformers.
"""

import importlib.util
import io
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from vocabkit.checkpoint.folder import Folder
from vocabkit.corpus.lines import read_texts
from vocabkit.files import SELF_TEST_TEXTS
from vocabkit.gguf.files import NewTensor, read_gguf
from vocabkit.gguf.model import load_llama
from vocabkit.gguf.vocab import GgufVocab
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.encoder import encoded, load_encoder
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE
from vocabkit.verify.check import SHOWN, Check

TEXTS = 200  # of the bundled ones; each added token is looked for in two more
SMALL = 1 << 30  # bytes of weights up to which both programs load the model for its logits
PLACES = 24  # tokens of the text whose logits are compared
# Largest distance of two vectors of logits, relative to their length, that rounding explains. Another head,
# or rows of q and k in another order, are at 1 and more.
DISTANCE = {"f32": 0.02, "bf16": 0.1, "f16": 0.1, "q8_0": 0.2}


def compare(
    part: Path, source: Folder, vocab: GgufVocab, *, tensors: Sequence[NewTensor], kind: str
) -> list[Check]:
    """Return what a written file, part, has that its folder has not; kind: of its matrices."""
    checks = [_tensors(part, tensors), _texts(part, source, vocab)]
    if not any(check.findings for check in checks):
        checks.append(_logits(part, source, kind))
    return checks


class _Comparer(io.RawIOBase):
    """A file that is not written: what would be is compared with the bytes that follow in another."""

    def __init__(self, path: Path, start: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self.same = True

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        wanted = memoryview(data).cast("B")  # type: ignore[arg-type]
        self.same = self.same and self._file.read(len(wanted)) == wanted
        return len(wanted)

    def close(self) -> None:
        self._file.close()
        super().close()


def _tensors(part: Path, tensors: Sequence[NewTensor]) -> Check:
    check = Check("tensors")
    written = read_gguf(part).tensors
    check.find("tensor is gone", sorted({t.name for t in tensors} - written.keys()))
    check.find("tensor is new", sorted(written.keys() - {t.name for t in tensors}))
    for tensor in (tensor for tensor in tensors if tensor.name in written):
        found = written[tensor.name]
        with _Comparer(part, found.start) as comparer:
            tensor.write(comparer, lambda bytes_written: None)  # type: ignore[arg-type]
            same = comparer.same and (found.dims, found.size) == (tensor.dims, tensor.size)
        if not same:
            check.findings.append(f"{tensor.name} differs from the folder's")
    check.looked_at = f"{len(tensors):,} tensors, {sum(t.size for t in tensors):,} bytes"
    return check


def _texts(part: Path, source: Folder, vocab: GgufVocab) -> Check:
    check = Check("tokenizer")
    try:
        llama = load_llama(part, vocab_only=True)
    except ValueError as error:
        check.findings.append(f"llama.cpp cannot load it ({error}); a newer llama-cpp-python may: upgrade it")
        return check
    if llama is None:
        check.looked_at = "not looked at: pip install llama-cpp-python, and llama.cpp's own is asked"
        return check
    texts = list(islice(filter(None, map(nfc, _sentences())), TEXTS))
    texts += [text for token in source.tokenizer.added for text in (token, f"Có{token} và{token}.")]
    # What llama.cpp is known to cut otherwise was said already; ▁ in a text is a space to it.
    known = [*vocab.cut_otherwise, *(["▁"] if source.tokenizer.family != BYTE_LEVEL_BPE else [])]
    texts = [text for text in texts if not any(said in text for said in known)]
    encoder = load_encoder(source.path)
    for text, encoding in zip(texts, encoded(encoder, texts), strict=True):
        found = llama.tokenize(text.encode(), add_bos=False, special=True)
        if found != encoding.ids:
            check.findings.append(
                f"{text[:60]!r} is {found[:8]} in llama.cpp, {encoding.ids[:8]} in the folder"
            )
            if len(check.findings) == SHOWN:
                break
    check.looked_at = f"{len(texts):,} texts, by llama.cpp"
    return check


def _sentences() -> Iterable[str]:
    return read_texts([SELF_TEST_TEXTS], lines_per_text=1)


def _logits(part: Path, source: Folder, kind: str) -> Check:
    check = Check("logits")
    missing = [name for name in ("llama_cpp", "torch") if importlib.util.find_spec(name) is None]
    if missing or source.checkpoint.size > SMALL:
        why = f"{missing[0]} is not installed" if missing else f"{source.checkpoint.size:,} bytes of weights"
        check.looked_at = f"not looked at: {why}"
        return check
    ids = _ids(source)
    wanted, found = _of_folder(source.path, ids), _of_llama(part, ids)
    wanted, found = wanted[:, : found.shape[1]], found[:, : wanted.shape[1]]
    distances = np.linalg.norm(found - wanted, axis=1) / np.maximum(np.linalg.norm(wanted, axis=1), 1e-9)
    check.numbers = {"distance": float(distances.max())}
    check.looked_at = f"of {len(ids)} tokens, llama.cpp beside transformers"
    if not distances.max() <= DISTANCE[kind]:
        check.findings.append(
            f"logits differ by {distances.max():.2f} of their length, expected {DISTANCE[kind]} at most"
        )
    return check


def _ids(source: Folder) -> list[int]:
    encoder, found = load_encoder(source.path), list[int]()
    for text in _sentences():
        found += encoder.encode(nfc(text)).ids
        if len(found) >= PLACES:
            break
    return found[:PLACES]


def _of_folder(folder: Path, ids: Sequence[int]) -> np.ndarray:
    import torch

    from vocabkit.models.load import load_model

    model = load_model(folder, dtype="float32", device="cpu")
    with torch.inference_mode():
        logits: np.ndarray = model(torch.tensor([list(ids)])).logits[0].float().numpy()
    return logits


def _of_llama(part: Path, ids: Sequence[int]) -> np.ndarray:
    model = load_llama(part, n_ctx=2 * PLACES, logits_all=True)
    model.eval(list(ids))
    return np.array(model.scores[: len(ids)])
