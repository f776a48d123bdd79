"""vocabkit/train/loss.py, models/split_rows.py: the fused loss is the plain one, and rows of their own change
nothing.
"""

import build
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from vocabkit.models.split_rows import split_rows
from vocabkit.train import loss as train_loss
from vocabkit.train.data.packing import Collator, pack
from vocabkit.train.loss import fuse_loss, summed_nats

FAMILIES = [("qwen2", True), ("qwen2", False), ("gemma2", True), ("llama", False)]
STOP = 150  # pretend that so many rows are tokens
CHUNKS = [1 << 24, STOP * 7, 1]  # logits: all, those of 7 places, of one
IDS = torch.arange(1, 61).reshape(3, 20) * 2 % STOP
LABELS = IDS.masked_fill(torch.arange(20) < 5, -100)


@pytest.fixture(scope="module")
def model(checkpoint, tmp_path_factory):
    """family, tied → a new copy of a tiny model each time."""

    def load(family: str, tied: bool, **changes):
        folder = checkpoint(family, tied=tied)
        if changes:
            place = tmp_path_factory.mktemp("model") / family
            folder = build.make_checkpoint(place, family, tied=tied, **changes)
        return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")

    return load


def plain_loss(model, ids=IDS, labels=LABELS) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1, :STOP].float()
    return F.cross_entropy(logits.reshape(-1, STOP), labels[:, 1:].reshape(-1))


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_loss_and_gradients_are_the_plain_ones(model, family, tied, chunk):
    plain, fused = model(family, tied), fuse_loss(model(family, tied), n_tokens=STOP, chunk=chunk)
    expected = plain_loss(plain)
    expected.backward()
    loss = fused(input_ids=IDS, labels=LABELS).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    for (name, one), other in zip(plain.named_parameters(), fused.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=2e-6), name
    head = fused.get_output_embeddings().weight.grad
    assert head[:STOP].abs().sum() > 0
    if not tied:
        assert not head[STOP:].any(), "padding rows have a gradient"


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_split_rows_give_the_same_loss_and_gradient(model, family, tied, chunk):
    plain, split = model(family, tied), model(family, tied)
    rows = split_rows(split, first=STOP - 40, stop=STOP)
    fuse_loss(split, n_tokens=STOP, chunk=chunk)
    expected = plain_loss(plain)
    expected.backward()
    loss = split(input_ids=IDS, labels=LABELS).loss
    loss.backward()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    trained = {name for name, p in split.named_parameters() if p.requires_grad}
    assert all(name.endswith(".rows") for name in trained) and len(trained) == len(rows) == (1 if tied else 2)
    ends = {"embed": plain.get_input_embeddings(), "head": plain.get_output_embeddings()}
    for name, parameter in rows.items():
        assert torch.allclose(parameter.grad, ends[name].weight.grad[STOP - 40 : STOP], atol=2e-6), name
    assert all(p.grad is None for p in split.parameters() if not p.requires_grad)
    with torch.no_grad():
        assert torch.allclose(split(IDS).logits, plain(IDS).logits, atol=1e-5)


def test_a_head_that_does_more_keeps_its_own_forward(model):
    """Granite divides its logits; the loss must not leave that out."""
    folder_model = model("llama", True)
    folder_model.config.logits_scaling = 2.0
    own = folder_model.forward
    folder_model.forward = lambda *args, **options: _halved(own(*args, **options))
    loss = fuse_loss(folder_model, n_tokens=STOP)(input_ids=IDS, labels=LABELS).loss
    logits = model("llama", True)(IDS).logits[:, :-1, :STOP] / 2
    expected = F.cross_entropy(logits.reshape(-1, STOP), LABELS[:, 1:].reshape(-1))
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def _halved(output):
    output.logits = output.logits / 2
    return output


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_head_with_a_bias(softcap, chunk):
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(8, 170), torch.randn(25, 8, requires_grad=True)
    wanted = torch.arange(25) * 5
    logits = head(hidden)[:, :STOP]
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    expected = F.cross_entropy(logits, wanted, reduction="none")
    total, each = summed_nats(head, hidden, wanted, n_tokens=STOP, softcap=softcap, chunk=chunk)
    assert torch.allclose(each, expected, atol=1e-6) and not each.requires_grad
    parts = [hidden, head.weight, head.bias]
    for got, other in zip(
        torch.autograd.grad(total / 3, parts), torch.autograd.grad(expected.sum() / 3, parts), strict=True
    ):
        assert torch.allclose(got, other, atol=1e-6)


def test_logits_are_made_once(model, monkeypatch):
    """Forward and backward together: as many products with the head as there are chunks."""
    made = []
    linear = F.linear
    fused = fuse_loss(model("qwen2", False), n_tokens=STOP, chunk=STOP * 7)
    monkeypatch.setattr(F, "linear", lambda x, w, b=None: (made.append(len(w)), linear(x, w, b))[1])
    fused(input_ids=IDS, labels=LABELS).loss.backward()
    assert made.count(STOP) == -(-45 // 7)


def test_nothing_is_learned_where_no_gradient_is_asked_for(model, monkeypatch):
    fused = fuse_loss(model("qwen2", False), n_tokens=STOP)
    monkeypatch.setattr(train_loss, "_add_product", lambda *_: pytest.fail("a gradient was computed"))
    with torch.no_grad():
        assert float(fused(input_ids=IDS, labels=LABELS).loss) > 0


def test_gradients_are_scaled_once(model):
    loss = fuse_loss(model("qwen2", False), n_tokens=STOP)(input_ids=IDS, labels=LABELS).loss
    loss.backward(retain_graph=True)
    with pytest.raises(AttributeError):
        loss.backward()


def test_autocast_computes_logits_in_bfloat16_and_gradients_in_float32(model):
    plain, fused = model("qwen2", False), fuse_loss(model("qwen2", False), n_tokens=STOP, chunk=STOP * 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, expected = fused(input_ids=IDS, labels=LABELS).loss, plain_loss(plain)
    loss.backward()
    expected.backward()
    assert float(loss) == pytest.approx(float(expected), rel=1e-3)
    got, other = (part.get_output_embeddings().weight.grad for part in (fused, plain))
    assert got.dtype == torch.float32 and torch.allclose(got, other, atol=2e-3)


def test_losses_of_a_bfloat16_model_are_float32(model):
    fused = fuse_loss(model("qwen2", True).bfloat16(), n_tokens=STOP)
    output = fused(input_ids=IDS, labels=LABELS, per_row=True)
    assert output.loss.dtype == output.logits.dtype == torch.float32
    assert float(output.loss) == pytest.approx(float(plain_loss(model("qwen2", True))), rel=0.02)
    mean = float(output.logits[:, 0].sum() / output.logits[:, 1].sum())
    assert mean == pytest.approx(float(output.loss), rel=1e-6), "rows do not add up to the loss"


def test_num_items_in_batch_divides(model):
    fused = fuse_loss(model("qwen2", True), n_tokens=STOP)
    whole = fused(input_ids=IDS, labels=LABELS).loss
    parts = [
        fused(input_ids=IDS[i : i + 1], labels=LABELS[i : i + 1], num_items_in_batch=45).loss
        for i in range(3)
    ]
    assert (LABELS[:, 1:] != -100).sum() == 45
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_documents_of_one_row_do_not_see_each_other(model, attention):
    """And the two traps that let them: a cache, which fuse_loss() prevents, and a mask of ones."""
    import datasets

    documents = [list(range(1, 12)), list(range(40, 49)), list(range(90, 110))]
    rows = datasets.Dataset.from_list(
        [{"input_ids": ids, "labels": ids, "num_bytes": len(ids)} for ids in documents]
    )
    tiny = model("qwen2", True)
    tiny.config._attn_implementation = attention
    assert tiny.config.use_cache, "the setting that springs the trap"
    fused = fuse_loss(tiny, n_tokens=STOP)
    collate = Collator(0, False)
    packed = pack(rows, how="best_fit", max_length=64, seed=0, notes=lambda note: None)
    alone = pack(rows, how="none", max_length=64, seed=0, notes=lambda note: None)
    assert len(packed) == 1 and len(alone) == 3
    with torch.no_grad():
        together = fused(**collate([packed[0]]), per_row=True).logits.sum(0)
        each = sum(fused(**collate([row]), per_row=True).logits.sum(0) for row in alone)
        assert torch.allclose(together, each, rtol=1e-6)
        masked = collate([packed[0]])
        masked["attention_mask"] = torch.ones_like(masked["input_ids"])
        sprung = fused(**masked, per_row=True).logits.sum(0)
        assert abs(float(sprung[0] - each[0])) > 1e-2, "a mask of ones no longer turns the block mask off"
