"""Sets of golden numbers for what guidon does not have: every case is counted as skipped, with what it waits for."""

from __future__ import annotations

import pytest
from parity.golden import GOLDEN, settings

WAITS_FOR = {
    "clip_tokenizer": "no tokenizer",
    "glide_base": "no text-to-image network",
    "glide_cfg_sampling": "no text-to-image network",
    "glide_inpaint": "no text-to-image network",
    "glide_sr": "no text-to-image network",
    "glide_tokenizer": "no tokenizer",
}


def waiting() -> list[object]:
    found = []
    for name, reason in WAITS_FOR.items():
        if (GOLDEN / f"{name}.json").exists():
            cases = settings(name).get("cases", [name])
            keys = (
                cases
                if isinstance(cases, dict)
                else [c.get("key", i) if isinstance(c, dict) else c for i, c in enumerate(cases)]
            )
            found += [pytest.param(reason, id=f"{name}-{key}") for key in keys]
    return found


@pytest.mark.parametrize("reason", waiting())
def test_not_yet(reason: str) -> None:
    pytest.skip(reason)
