from __future__ import annotations

import pytest
import torch

from guidon.conditioning import LabelEncoder, Labels
from guidon.errors import BadValue, ShapeMismatch, UnknownLabel

LABELS = Labels(torch.tensor([0, 3, 2, 4]), 4)


def test_null_drop_take_stack() -> None:
    assert LABELS.null().ids.tolist() == [4] * 4
    assert LABELS.drop(torch.tensor([True, False, False, True])).ids.tolist() == [4, 3, 2, 4]
    assert LABELS.take([2, 0]).ids.tolist() == [2, 0]
    assert Labels.stack([LABELS, LABELS.null()]).ids.tolist() == [0, 3, 2, 4, 4, 4, 4, 4]
    assert len(LABELS) == 4 and LABELS.ids.tolist() == [0, 3, 2, 4]


@pytest.mark.parametrize("ids", [[5], [-1, 0]])
def test_ids_out_of_range_are_named(ids: list[int]) -> None:
    with pytest.raises(UnknownLabel, match=str(ids[0])):
        Labels(torch.tensor(ids), 4)


def test_wrong_kinds_are_refused() -> None:
    for ids in (torch.zeros(2), torch.zeros(2, 2, dtype=torch.long)):
        with pytest.raises(ShapeMismatch):
            Labels(ids, 4)
    with pytest.raises(ShapeMismatch):
        Labels.stack([LABELS, Labels(torch.tensor([0]), 3)])
    with pytest.raises(UnknownLabel):
        LabelEncoder(3, 8)(LABELS)
    with pytest.raises(BadValue):
        LabelEncoder(3, 8, "window")  # type: ignore[arg-type]


@pytest.mark.parametrize(("door", "shape"), [("vector", (4, 8)), ("tokens", (4, 1, 8)), ("spatial", (4, 8, 1, 1))])
def test_every_door_delivers_the_same_row(door: str, shape: tuple[int, ...]) -> None:
    encoder = LabelEncoder(4, 8, door)  # type: ignore[arg-type]
    part = getattr(encoder(LABELS), door)
    assert part.shape == shape
    assert torch.equal(part.flatten(1), encoder.embedding.weight[LABELS.ids])


def test_the_null_is_a_learned_row_of_its_own() -> None:
    encoder = LabelEncoder(4, 8)
    context = encoder(LABELS.null())
    context.vector.square().sum().backward()
    gradient = encoder.embedding.weight.grad
    assert gradient[4].abs().sum() > 0 and gradient[:4].abs().sum() == 0
