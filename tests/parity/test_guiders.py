"""Guiders of diffusers, given the predictions of the branches, in guidon's terms.

What they write differently: ``use_original_formulation`` is c + s (c - u), hence w = s + 1, and otherwise u + s (c - u), w = s.
Where the difference is shaped first, f(c - u), guidon's c + (w - 1) f is the original formulation; the other one, u + s f, is
that with w = s + 1, and u - c added: one more `cfg` of weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from parity.golden import Case, cases, tensors
from support.numbers import agree, normal
from torch import Tensor
from torch.nn import functional

from guidon.guidance import APG, CFG, FDG, GIVEN, NULL, TCFG, CFGZero, MamboG, Moment, Rescale, Rule, Weight
from guidon.guidance.pyramid import doubled, laplacian
from guidon.guidance.rule import State
from guidon.guidance.space import view
from guidon.guidance.weights import OfMoment
from guidon.noise import Level, Prediction
from guidon.registry import lookup

SET = "sampling/d_guiders"
SPACES = ("x0", "eps", "v", "velocity")  # every stage means the same in the space that it is told
MIXED = ("AdaptiveProjectedMixGuidance",)
# guider: rule, prefix of its settings, the answer that it takes besides
PERTURBED = {
    "PerturbedAttentionGuidance": ("pag", "perturbed_guidance"),
    "SkipLayerGuidance": ("slg", "skip_layer_guidance"),
    "SmoothedEnergyGuidance": ("seg", "seg_guidance"),
}


def is_on(args: Mapping[str, Any], at: Moment, start: str = "start", stop: str = "stop") -> bool:
    """Return whether a step lies in the range of steps of a guider."""
    if not args.get("enabled", True):
        return False
    return int(args.get(start, 0.0) * at.steps) <= at.index < int(args.get(stop, 1.0) * at.steps)


def is_on_strictly(args: Mapping[str, Any], prefix: str, at: Moment) -> bool:
    """Return whether a step lies in the range of a perturbation, which begins one step later."""
    start, stop = (
        int(args.get(f"{prefix}_{end}", default) * at.steps) for end, default in (("start", 0.01), ("stop", 0.2))
    )
    return start < at.index < stop


def weight_of(args: Mapping[str, Any], scale: float, *, shaped: bool = False) -> float:
    """Return guidon's weight: 1 where the guider is off, which it decides by its scale."""
    neutral = 0.0 if args.get("use_original_formulation") else 1.0
    if scale == neutral:
        return 1.0
    return scale + 1 if args.get("use_original_formulation") or shaped else scale


def when_on(args: Mapping[str, Any], weight: float) -> Weight:
    return OfMoment(lambda at: weight if is_on(args, at) else 1.0)


def rule_of(name: str, args: Mapping[str, Any], space: str) -> Rule:
    """Return a guider as a rule."""
    if name == "FrequencyDecoupledGuidance":
        return frequency_decoupled(args, space)
    scale = args.get("guidance_scale", 7.5)
    weight, mix = weight_of(args, scale), args.get("guidance_rescale", 0.0)
    # weight 0 is the null branch as it is; the originals shape it there too, as guidon does at any other weight
    shaped = weight or 1e-300
    match name:
        case "ClassifierFreeGuidance":
            rule: Rule = CFG(when_on(args, weight))
        case "ClassifierFreeZeroStarGuidance":
            # the base is the scaled u in either formulation, and the zeroed steps do not ask for the range
            rule = CFG(when_on(args, shaped)) | CFGZero(args.get("zero_init_steps", 1), space=space)
        case "TangentialClassifierFreeGuidance":
            rule = CFG(when_on(args, shaped)) | TCFG(space)
        case "MagnitudeAwareGuidance":
            rule = CFG(when_on(args, shaped)) | MamboG(args.get("alpha", 8.0), space)
        case "AdaptiveProjectedGuidance":
            rule = projected(args, scale, apg_of(args, args.get("adaptive_projected_guidance_rescale", 15.0), space))
        case "AdaptiveProjectedMixGuidance":
            apg = apg_of(args, args.get("adaptive_projected_guidance_rescale", 10.0), space, momentum=-0.5)
            rule = projected(args, args.get("adaptive_projected_guidance_scale", 10.0), apg)
        case "AutoGuidance":
            rule = lookup("rule", "autoguidance")(when_on(args, weight))
        case _:
            rule = perturbed(name, args, weight)
    return rule | Rescale(mix, space) if mix else rule


def apg_of(args: Mapping[str, Any], radius: float, space: str, momentum: float | None = None) -> APG:
    momentum = args.get("adaptive_projected_guidance_momentum", momentum) or 0.0
    axes = args.get("adaptive_projected_guidance_norm_dim")
    axes = (axes,) if isinstance(axes, int) else None if axes is None else tuple(axes)
    eta = args.get("eta", 1.0 if "adaptive_projected_guidance_start_step" not in args else 0.0)
    return APG(eta, radius if radius > 0 else torch.inf, momentum, space, axes)


def projected(args: Mapping[str, Any], scale: float, apg: APG) -> Rule:
    rule = CFG(when_on(args, weight_of(args, scale, shaped=True))) | apg
    if args.get("use_original_formulation") or weight_of(args, scale, shaped=True) == 1:
        return rule
    return rule | CFG(OfMoment(lambda at: 0.0 if is_on(args, at) else 1.0))


def perturbed(name: str, args: Mapping[str, Any], weight: float) -> Rule:
    """c or u, plus s (c - u), plus s2 (c - weak); where the first is off, weak or c, plus s2 (c - weak)."""
    member, prefix = PERTURBED[name]
    scale = args[f"{prefix}_scale"]

    def strength(at: Moment) -> float:
        if scale == 0 or not is_on_strictly(args, prefix, at):
            return 1.0
        alone = weight == 1 or not is_on(args, at)
        return scale if alone and not args.get("use_original_formulation") else scale + 1

    return CFG(when_on(args, weight)) | lookup("rule", member)(OfMoment(strength))


def frequency_decoupled(args: Mapping[str, Any], space: str) -> Rule:
    scales = args.get("guidance_scales", [10.0, 5.0])
    original = args.get("use_original_formulation", False)
    bands = len(scales)

    def each(key: str, default: float | None) -> tuple[Any, ...]:
        value = args.get(key, default)
        return tuple(value) if isinstance(value, list | tuple) else (value,) * bands

    parallel = None if args.get("parallel_weights") is None else each("parallel_weights", None)
    in_bands = args.get("guidance_rescale_space", "data") == "freq"
    rescale = each("guidance_rescale", 0.0)
    shaped = parallel is not None and not original
    if shaped and in_bands:
        pytest.skip("the reference rescales bands of u + s f(c - u), which is no c + (w - 1) f(c - u)")

    def of_band(scale: float, start: float, stop: float) -> Weight:
        neutral = 0.0 if original else 1.0
        weight = 1.0 if scale == neutral else scale + 1 if original or shaped else scale
        return when_on({"start": start, "stop": stop}, weight)

    ranges = each("start", 0.0), each("stop", 1.0)
    weights = tuple(of_band(*band) for band in zip(scales, *ranges, strict=True))
    rule: Rule = FDG(weights, parallel=parallel, rescale=rescale if in_bands and any(rescale) else None, space=space)
    if shaped:
        rule = rule | CFG(0.0)
    return rule if in_bands or not rescale[0] else rule | Rescale(rescale[0], space)


class Run:
    """A rule's calls one after the other, each given what the branches answer."""

    def __init__(self, rule: Rule, space: str, steps: int) -> None:
        self.rule, self.space, self.steps = rule, space, steps
        self.state: State = rule.init()
        self.asked = 0

    def at(self, index: int) -> Moment:
        """Return the moment of a step; the levels are any."""
        here, there = (Level(0.0, 1 / (1 + i), (1 + i) / 2) for i in (self.steps - index, self.steps - index - 1))
        return Moment(here, there, index, self.steps)

    def call(self, index: int, given: Tensor, null: Tensor, weak: Tensor | None) -> Tensor:
        """Return the guided view at a step."""
        at = self.at(index)
        asked = self.rule.branches(at, self.state)
        self.asked = len(asked)
        x, read = normal(*given.shape, seed=index), getattr(Prediction, f"from_{self.space}")
        raw = {branch: given if branch == GIVEN else null if branch == NULL else weak for branch in asked}
        told = {branch: read(x, answer, at.here) for branch, answer in raw.items()}
        guided, self.state = self.rule.combine(told, at, self.state)
        belongs = Prediction(x, at.here, guided.x0, guided.eps)
        agree(at.here.alpha * guided.x0 + at.here.sigma * guided.eps, x, f"x at {index}")
        return view(belongs, self.space)


@pytest.mark.parametrize("case", cases(SET, kind="guider"))
def test_guider(case: Case) -> None:
    for space in SPACES:
        check(case, space)
    for name, prediction in zip(("cond", "uncond"), inputs(case.params["input"]), strict=False):
        bands = len(case.params["args"].get("guidance_scales", ()))
        for i in range(bands):
            key = f"laplacian_{name}_step0_level{i}"
            if case.has(key):
                agree(laplacian(padded_as(case, prediction[0]), bands)[i], case[key], key)


def check(case: Case, space: str, kind: type[Run] = Run) -> None:
    params, args = case.params, case.params["args"]
    run = kind(rule_of(params["guider"], args, space), space, params["num_inference_steps"])
    # the mixed guider is plain at first, and only remembers
    plain_until = args.get("adaptive_projected_guidance_start_step", 5) if params["guider"] in MIXED else -1
    given, null, weak = inputs(params["input"])
    # auto-guidance leaves layers out of the same network where others leave out the condition
    weak = null if params["guider"] == "AutoGuidance" else weak
    for call, step in enumerate(case["step"].tolist()):
        answers = padded_as(case, given[call]), padded_as(case, null[call]), weak[call]
        got, asked = run.call(step, *answers), run.asked
        if step <= plain_until:
            got = kind(rule_of("ClassifierFreeGuidance", args, space), space, run.steps).call(step, *answers)
        agree(got, case["pred"][call], f"{space} at {step}")
        if 0 not in (args.get("guidance_scale"), *args.get("guidance_scales", ())):
            # at weight 0 the original asks the given branch too, in vain
            counts = case["num_conditions"].reshape(-1)
            assert asked == int(counts[min(call, len(counts) - 1)])
    if case.has("running_average_final"):
        (memory,) = run.state[1]
        agree(memory, case["running_average_final"], "momentum")


def inputs(name: str) -> list[Tensor]:
    """Return what the branches answer: given, null, and the weaker network, (calls, B, ...)."""
    return [tensors(SET)[f"inputs/{name}/pred_{end}"] for end in ("cond", "uncond", "skip")]


def padded_as(case: Case, image: Tensor) -> Tensor:
    """Return the images as the pyramid of the reference pads them, right and below, where it does; it never cuts the result."""
    scales = case.params.get("args", {}).get("guidance_scales")
    levels = case.params.get("levels", len(scales) if scales else 0)
    return padded(image, levels) if levels else image


def padded(image: Tensor, levels: int) -> Tensor:
    sides = image.shape[-2:]
    whole = [1 << (side - 1).bit_length() for side in sides]
    fits = any(side == power for side, power in zip(sides, whole, strict=True))
    if fits and all(side % 2 ** (levels - 1) == 0 for side in sides):
        return image
    return functional.pad(image, (0, whole[1] - sides[1], 0, whole[0] - sides[0]), mode="reflect")


@pytest.mark.parametrize("case", cases(SET, kind="fdg_level_intervals_derived"))
def test_intervals_of_bands(case: Case) -> None:
    run = Run(frequency_decoupled(case.params["args"], "x0"), "x0", case.params["num_inference_steps"])
    given, null, _ = inputs(case.params["input"])
    for call, step in enumerate(case["step"].tolist()):
        got = run.call(step, given[call], null[call], None)
        agree(got, case["pred"][call], f"step {step}")
        assert run.asked == 1 + bool(case["level_enabled"][call].any())


@pytest.mark.parametrize("case", cases(SET, kind="laplacian_pyramid"))
def test_pyramid(case: Case) -> None:
    levels = case.params["levels"]
    for i, band in enumerate(laplacian(padded_as(case, case["input"]), levels)):
        agree(band, case[f"level{i}"], f"band {i}")


@pytest.mark.parametrize("case", cases(SET, kind="pyrup"))
def test_doubling(case: Case) -> None:
    agree(doubled(case["input"], case["out"].shape[-2:]), case["out"], "doubled")


@pytest.mark.parametrize("case", cases(SET, kind="rescale_noise_cfg"))
def test_rescale(case: Case) -> None:
    key, call = case.params["noise_pred_text"].removesuffix("]").split("[")
    level, x = Level(0.0, 0.6, 0.8), normal(*case["out"].shape)
    for space in SPACES:
        read = getattr(Prediction, f"from_{space}")
        guided, given = read(x, case["noise_cfg"], level), read(x, tensors(SET)[key][int(call)], level)
        got, _ = Rescale(case.params["guidance_rescale"], space).reshape(guided, given, Moment(level, level), None)
        agree(view(got, space), case["out"], space)
