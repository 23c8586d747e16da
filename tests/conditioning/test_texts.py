"""Texts as conditions: their null, how they are dropped, joined and told apart, and what is drawn at random."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.text_models import text_model, vocabulary
from torch import Tensor

from guidon.conditioning import Texts
from guidon.errors import BadValue, ShapeMismatch
from guidon.training.batches import Batch
from guidon.training.objective import DenoisingLoss, Objective

EMPTY = (1, 0, 0, 0), (True, False, False, False)


def rows(*tokens: list[int]) -> Texts:
    """Return texts of these tokens after the start."""
    made = [[1, *each, 0, 0, 0][:4] for each in tokens]
    return Texts(torch.tensor(made), torch.tensor([[i <= len(each) for i in range(4)] for each in tokens]), EMPTY)


def same(a: Texts, b: Texts) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.mask, b.mask) and a.empty == b.empty


def test_the_null_is_the_row_of_the_empty_text() -> None:
    told = rows([7, 8], [9])
    assert same(told.null(), rows([], []))
    tokenizer = vocabulary()
    assert same(tokenizer.encode(["a red circle"]).null(), tokenizer.encode([""]))


def test_what_is_dropped_is_the_null_and_the_rest_stays() -> None:
    told = rows([7, 8], [9], [5, 6, 4])
    dropped = told.drop(torch.tensor([True, False, True]))
    assert same(dropped, rows([], [9], []))
    assert same(told, rows([7, 8], [9], [5, 6, 4])), "the original is left alone"
    assert same(told.drop(torch.zeros(3, dtype=torch.bool)), told)
    assert same(told.drop(torch.ones(3, dtype=torch.bool)), told.null())


def test_taking_undoes_stacking() -> None:
    a, b = rows([7, 8], [9]), rows([5])
    both = Texts.stack([a, b])
    assert len(both) == 3 and same(both.take(slice(2)), a) and same(both.take([2]), b)
    assert same(both.take(torch.tensor([2, 0])), Texts.stack([b, a.take([0])]))
    assert len(both.take([])) == 0


@pytest.mark.parametrize("seed", range(5))
def test_distinct_texts_and_which_is_whose_give_all_back(seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, 4, (20, 4), generator=numbers)
    mask = torch.randint(2, (20, 4), generator=numbers).bool()
    told = Texts(tokens, mask, EMPTY)
    found, which = told.distinct()
    assert same(found.take(which), told)
    assert len(found) == len({(*map(tuple, pair),) for pair in zip(tokens.tolist(), mask.tolist(), strict=True)})
    assert len(found.distinct()[0]) == len(found)


def test_texts_that_differ_in_the_mask_alone_are_two() -> None:
    told = Texts(torch.tensor([[1, 7, 0, 0]] * 3), torch.tensor([[True, True, False, False]] * 3), EMPTY)
    assert len(told.distinct()[0]) == 1
    told.mask[1, 2] = True  # the padding token, but meant
    found, which = told.distinct()
    assert len(found) == 2 and which[0] == which[2] != which[1]


def test_what_is_random_depends_on_its_own_stream_and_length_alone() -> None:
    told = replace(rows([7, 8, 9], [5], [5, 6]), vocabulary=50)

    def drawn(texts: Texts, *seeds: int) -> Texts:
        return texts.random([torch.Generator().manual_seed(seed) for seed in seeds])

    together = drawn(told, 3, 4, 5)
    assert torch.equal(together.mask, told.mask), "as long as what it stands for"
    assert (together.tokens[:, 0] == 1).all() and (together.tokens[~told.mask] == 0).all()
    assert same(drawn(told, 3, 4, 5), together) and not same(drawn(told, 6, 7, 8), together)
    for i, seed in enumerate((3, 4, 5)):
        assert same(drawn(told.take([i]), seed), together.take([i])), "whatever stands beside it"
    other = replace(rows([20, 21, 22], [30], [31, 32]), vocabulary=50)
    assert same(drawn(other, 3, 4, 5), together), "and whatever it says"
    many = drawn(told.take([0] * 400), *range(400)).tokens[:, 1:]
    assert sorted(set(many.flatten().tolist())) == list(range(50))
    with pytest.raises(BadValue, match="vocabulary of unknown size"):
        drawn(rows([7]), 3)


def test_dropout_in_training_is_as_often_as_it_says_and_gives_the_null_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = text_model("cross")
    loss = DenoisingLoss(model, Objective(dropout=0.2))
    seen: list[Texts] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda told: (seen.append(told), encode(told))[1])
    images, captions = torch.zeros(64, 1, 8, 8), ["a red circle", "two green triangles"] * 32
    told = loss.told(Batch(images, None, captions))
    assert isinstance(told, Texts)
    share: list[Tensor] = []
    for step in range(40):
        draw = loss.objective.draw(model.process, images.shape, seed=1, step=step, device=torch.device("cpu"))
        if step == 0:
            loss(images, told, draw)
            assert same(seen[0], told.drop(draw.dropped))
            assert same(seen[0].take(draw.dropped.nonzero()[:, 0]), vocabulary().encode([""] * int(draw.dropped.sum())))
        share.append(draw.dropped)
    part, error = torch.cat(share).double().mean().item(), (0.2 * 0.8 / 2560) ** 0.5
    assert abs(part - 0.2) < 4 * error


def test_what_is_no_row_of_tokens_is_refused() -> None:
    tokens, mask = torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool)
    for wrong in (tokens.float(), tokens.bool(), tokens[0]):
        with pytest.raises(ShapeMismatch, match="rows of integers"):
            Texts(wrong, mask, EMPTY)
    with pytest.raises(ShapeMismatch, match="mask of the same shape"):
        Texts(tokens, mask[:, :3], EMPTY)
    with pytest.raises(ShapeMismatch, match="as long as that of the empty"):
        Texts(tokens[:, :3], mask[:, :3], EMPTY)
    with pytest.raises(ShapeMismatch, match="different tokenizers"):
        Texts.stack([rows([7]), Texts(tokens, mask, ((2, 0, 0, 0), EMPTY[1]))])
