"""The batch of a step is a function of seed and step: whatever was read before, in however many processes, from memory or from disk."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import pictures

from guidon.errors import BadValue
from guidon.training import data as data_module
from guidon.training.batches import Batch, ahead, epoch_order, step_indices
from guidon.training.data import DataConfig, LazyData, MemoryData, StreamData, TrainingData, open_data

N = 50
KINDS = ("memory", "lazy", "parquet-stream", "tar-stream")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    pictures.folder(root / "folder", N)
    pictures.parquet(root / "parquet", N, files=2, row_group=9)
    pictures.shards(root / "tar", N)
    return root


def opened(kind: str, root: Path, *, seed: int = 0, **fields: Any) -> TrainingData:
    source = {"memory": "folder", "lazy": "folder", "parquet-stream": "parquet", "tar-stream": "tar"}[kind]
    if kind == "tar-stream":
        fields["classes"] = [str(i) for i in range(10)]
    config = DataConfig(source=str(root / source), streaming=kind != "memory", buffer=12, **fields)
    data = open_data(config, seed=seed)
    assert isinstance(data, {"memory": MemoryData, "lazy": LazyData}.get(kind, StreamData))
    return data


def take(data: TrainingData, steps: int, batch_size: int = 8, **where: int) -> list[Batch]:
    return list(islice(data.batches(batch_size, **where), steps))


def numbers(batches: list[Batch]) -> list[int]:
    """Return which pictures these are."""
    pixels = torch.cat([((batch.images + 1) * 127.5).round().int() for batch in batches])
    return (pixels[:, 0, 0, 0] * 200 + pixels[:, 0, 0, 1]).tolist()


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.images, y.images) and torch.equal(x.labels, y.labels) and x.captions == y.captions  # type: ignore[arg-type]
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_the_order(kind: str, root: Path) -> None:
    first = take(opened(kind, root), 20)
    assert same(first, take(opened(kind, root), 20))
    assert numbers(first) != numbers(take(opened(kind, root, seed=1), 20))


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_has_every_item_once_and_the_next_in_another_order(kind: str, root: Path) -> None:
    order = numbers(take(opened(kind, root), 30, batch_size=10))
    epochs = [order[e * N : (e + 1) * N] for e in range(6)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert len({frozenset(epoch[:12]) for epoch in epochs}) > 2, "every epoch began with the same shard"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 5, 6, 7, 17])
def test_resuming_at_any_step_gives_what_an_uninterrupted_run_gets(kind: str, step: int, root: Path) -> None:
    whole = take(opened(kind, root, flip=True), 24)
    assert same(whole[step:], take(opened(kind, root, flip=True), 24 - step, start_step=step)), "by the step alone"

    interrupted = opened(kind, root, flip=True)
    running = interrupted.batches(8)
    for _ in range(step):
        next(running)
    state = json.loads(json.dumps(interrupted.state_dict()))
    resumed = opened(kind, root, flip=True)
    resumed.load_state_dict(state)
    assert same(whole[step:], take(resumed, 24 - step, start_step=step)), "by the step and the state"
    assert same(whole[:3], take(resumed, 3)), "a state that lies ahead must not be used"


@pytest.mark.parametrize("kind", KINDS)
def test_two_readers_of_the_same_data_do_not_disturb_each_other(kind: str, root: Path) -> None:
    whole = take(opened(kind, root), 30)
    data = opened(kind, root)
    for _ in range(5):  # left behind with work under way
        next(data.batches(8))
    pairs = list(islice(zip(data.batches(8), data.batches(8), strict=True), 30))
    assert same(whole, [first for first, _ in pairs])
    assert same(whole, [second for _, second in pairs])


@pytest.mark.parametrize("kind", ["parquet-stream", "tar-stream"])
def test_a_shard_can_be_read_by_several_threads_at_once(kind: str, root: Path) -> None:
    data = opened(kind, root)
    assert isinstance(data, StreamData)
    names = [item.name for _, item in data.shards.read(0)]
    with ThreadPoolExecutor(8) as pool:
        passes = list(pool.map(lambda _: [item.name for _, item in data.shards.read(0)], range(80)))
    assert passes == [names] * 80


def test_a_state_spares_a_stream_what_lies_before_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened("parquet-stream", root)
    take(data, 30)
    state = data.state_dict()
    assert state["cursor"]["epoch"] > 2
    resumed = opened("parquet-stream", root)
    resumed.load_state_dict(state)
    read: list[int] = []
    whole = type(resumed.shards).read  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "guidon.training.records.Shards.read",
        lambda self, shard, start=0: read.append(shard) or whole(self, shard, start),
    )
    take(resumed, 1, start_step=30)
    assert len(read) < 20, "five epochs would be thirty shards"


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_all_processes_joined_are_the_batch_of_one(kind: str, root: Path) -> None:
    whole = take(opened(kind, root, flip=True), 9)
    parts = [take(opened(kind, root, flip=True), 9, rank=rank, world=4) for rank in range(4)]
    for step, batch in enumerate(whole):
        assert all(len(part[step]) == 2 for part in parts)
        assert torch.equal(batch.images, torch.cat([part[step].images for part in parts]))
        assert torch.equal(batch.labels, torch.cat([part[step].labels for part in parts]))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lazy", "parquet-stream"])
def test_damage_leaves_the_processes_in_step(kind: str, tmp_path: Path) -> None:
    damaged = [*range(30), 33, 41]
    pictures.folder(tmp_path / "folder", N, damaged)
    pictures.parquet(tmp_path / "parquet", N, damaged, row_group=9)
    whole = take(opened(kind, tmp_path), 20)
    parts = [take(opened(kind, tmp_path), 20, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch.images, torch.cat([part[step].images for part in parts]))
    assert same(whole[13:], take(opened(kind, tmp_path), 7, start_step=13))
    assert set(numbers(whole)).isdisjoint(damaged)


@pytest.mark.parametrize("kind", ["memory", "lazy", "parquet-stream"])
def test_flips_are_half_of_the_images_and_leave_the_order_alone(kind: str, root: Path) -> None:
    plain = torch.cat([batch.images for batch in take(opened(kind, root), 50)])
    flipped = torch.cat([batch.images for batch in take(opened(kind, root, flip=True), 50)])
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    kept = (flipped == plain).flatten(1).all(1)
    assert torch.all(mirrored | kept)
    assert 150 < int((mirrored & ~kept).sum()) < 250


def test_flips_depend_on_seed_and_step_and_not_on_the_data(root: Path) -> None:
    def mask(kind: str) -> list[bool]:
        plain, flipped = (take(opened(kind, root, flip=flip), 40) for flip in (False, True))
        pairs = zip(plain, flipped, strict=True)
        return torch.cat([(a.images != b.images).flatten(1).any(1) for a, b in pairs]).tolist()

    assert mask("memory") == mask("parquet-stream")


def test_memory_and_disk_give_the_same_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = opened("memory", root, flip=True)
    monkeypatch.setattr(data_module, "MEMORY_LIMIT", 10)
    lazy = open_data(DataConfig(source=str(root / "folder"), flip=True))
    assert isinstance(lazy, LazyData)
    assert same(take(memory, 20), take(lazy, 20))


def test_a_batch_may_be_larger_than_the_data(root: Path) -> None:
    for kind in KINDS:
        assert sorted(numbers(take(opened(kind, root), 1, batch_size=2 * N))) == sorted(2 * list(range(N)))


def test_the_account_of_skipped_items_survives_a_resume(tmp_path: Path) -> None:
    pictures.folder(tmp_path / "folder", N, damaged=[4, 9])
    first = opened("lazy", tmp_path)
    take(first, 20)
    second = opened("lazy", tmp_path)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.skipped.items() == first.skipped.items()
    assert len(second.skipped) == 2


@pytest.mark.parametrize(
    "where", [{"world": 3}, {"rank": 2, "world": 2}, {"rank": -1}, {"start_step": -1}, {"world": 0}]
)
def test_impossible_parts_are_refused(where: dict[str, int], root: Path) -> None:
    with pytest.raises(BadValue, match="batch of 8"):
        opened("memory", root).batches(8, **where)


def test_positions_are_epochs_laid_end_to_end() -> None:
    steps = np.concatenate([step_indices(5, step, 7, 10) for step in range(10)])
    np.testing.assert_array_equal(steps, np.concatenate([epoch_order(5, epoch, 10) for epoch in range(7)]))


def test_work_done_ahead_keeps_its_order_and_its_errors() -> None:
    assert list(ahead(((lambda i=i: i * i) for i in range(20)), workers=4, depth=3)) == [i * i for i in range(20)]
    results = ahead(((lambda i=i: 1 // (3 - i)) for i in range(20)), workers=2, depth=3)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
