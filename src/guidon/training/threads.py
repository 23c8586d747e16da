"""How many CPU threads are fastest: measured, because a second busy process turns the usual answer around."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

GAIN = 1.1  # more threads must be this much faster: they suffer more when something else wants the cores


def fastest_threads(work: Callable[[], object], most: int, repeats: int = 3) -> int:
    """Return the thread count, 1, 2, 4, ... or ``most``, at which ``work`` runs fastest (the fewest, if it hardly matters).

    Args:
        work: a piece of the real work; it runs ``1 + repeats`` times at each count.
        most: the largest count to try, >= 1.
        repeats: timed runs at each count, of which the best counts.
    """
    before = torch.get_num_threads()
    counts = sorted({most, *(2**i for i in range(most.bit_length()) if 2**i < most)})
    took = {}
    try:
        for count in counts:
            torch.set_num_threads(count)
            work()
            took[count] = min(_time(work) for _ in range(repeats))
    finally:
        torch.set_num_threads(before)
    return min(count for count in counts if took[count] < GAIN * min(took.values()))


def _time(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
