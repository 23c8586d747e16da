"""Sets of golden numbers for what guidon does not have: every case is counted as skipped, with what it waits for."""

from __future__ import annotations

import pytest
from parity.golden import GOLDEN, settings

WAITS_FOR = {
    "adm_classifier": "no noisy classifier",
    "clip_tokenizer": "no tokenizer",
    "dit": "no diffusion transformer",
    "glide_base": "no text-to-image network",
    "glide_cfg_sampling": "no text-to-image network",
    "glide_inpaint": "no text-to-image network",
    "glide_sr": "no text-to-image network",
    "glide_tokenizer": "no tokenizer",
    "training_losses": "no variational bound",
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
