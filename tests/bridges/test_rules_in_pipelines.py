"""Every registered rule acts in every family of pipelines, or is refused with the reason."""

from __future__ import annotations

import pytest
import torch
from support.steered import outcome, rules, weaker
from support.tiny_pipelines import run
from support.zoo import EVERY

NOWHERE = {"icg": "at random", "internal": "halfway", "rectified-cfgpp": "another scheduler|no scheduler"}
NO_IMAGES = {"fdg": "needs images", "channels": "are no images"}
UNSCHEDULED = {"cfgpp": "another scheduler"}
REFUSED: dict[str, dict[str, str]] = {
    "flux": NO_IMAGES,
    "qwen-image": NO_IMAGES | {"cfg-zero": "divides by the norm"},
    "chroma": NO_IMAGES | {"tsg": "no layers"},
    "sana": {"pag": "changes nothing", "seg": "changes nothing"},
    "cogvideox": UNSCHEDULED,
    "ltx": NO_IMAGES,
    "dit": {"cads": "cannot be blurred"},
    "if": UNSCHEDULED,
    "if-sr": UNSCHEDULED,
    "kandinsky22": UNSCHEDULED,
    "kandinsky22-prior": NO_IMAGES | UNSCHEDULED,
    "unclip": NO_IMAGES | UNSCHEDULED,
}
FLOWS = ("sd3", "flux", "qwen-image", "chroma", "ltx", "wan", "wan-2.2", "auraflow", "sana")


@pytest.mark.parametrize("name", EVERY)
def test_rules_act_or_are_refused(name: str) -> None:
    family = EVERY[name]
    pipe, weak = family.make(), weaker(family)
    usual = run(pipe, family, **dict.fromkeys(family.weight, 3.0))
    may = NOWHERE | REFUSED.get(name, {}) | ({"tcfg": "no signal is left"} if name in FLOWS else {})
    for rule, text in rules().items():
        found = outcome(pipe, family, text, weak, usual)
        if rule in may:
            assert found.images is None, f"{text} is not refused by {name}"
            assert any(part in found.refused for part in may[rule].split("|")), f"{text}: {found.refused}"
            continue
        assert not found.refused, f"{text} in {name}: {found.refused}"
        assert found.images is not None and found.images.isfinite().all()
        if rule != "cfg":
            assert found.acts > 1e-6, f"{text} does nothing in {name}"
    assert torch.equal(run(pipe, family, **dict.fromkeys(family.weight, 3.0)), usual)
