"""One thread, and warnings as errors in the heart of the library."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))  # for `support` and `parity.golden`

HEART = {"noise", "guidance", "solvers", "sampling", "laws", "parity"}

settings.register_profile("guidon", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("guidon")
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).parts[0] in HEART:
            item.add_marker(pytest.mark.filterwarnings("error"))
