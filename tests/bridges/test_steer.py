"""A steered pipeline: the same as itself under cfg, what the originals give under other rules, and as it was afterwards."""

from __future__ import annotations

import functools
from typing import Any

import diffusers
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from peft import LoraConfig
from support.tiny_pipelines import Family, run, seeded, stable_diffusion, with_scheduler
from support.zoo import EVERY
from torch import Tensor

import guidon
from guidon.bridges.layout import Layout
from guidon.errors import BadValue, NotSupported, UnknownName

SD = EVERY["sd"]
PAIRS = [(name, scheduler) for name, family in EVERY.items() for scheduler in (family.schedulers or {"as it is": None})]


@functools.cache
def pipe_of(name: str) -> Any:
    return EVERY[name].make()


def of(name: str, scheduler: str = "as it is") -> tuple[Any, Family]:
    """Return a pipeline, the same at every call, with a scheduler."""
    pipe, family = pipe_of(name), EVERY[name]
    return (pipe if scheduler == "as it is" else with_scheduler(pipe, family, scheduler)), family


def own(pipe: Any, family: Family, weight: float, **more: Any) -> Tensor:
    """Return what a pipeline gives by itself."""
    return run(pipe, family, **dict.fromkeys(family.weight, weight), **more)


def agree(got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
    off = (got - want).abs().max().item()
    assert off <= tolerance * max(1.0, want.abs().max().item()), f"off by {off:.2e} of {want.abs().max().item():.3g}"


@pytest.fixture
def sd() -> Any:
    return of("sd", "DDIMScheduler")[0]


@pytest.mark.parametrize(("name", "scheduler"), PAIRS)
def test_cfg_is_the_pipelines_own(name: str, scheduler: str) -> None:
    pipe, family = of(name, scheduler)
    want = own(pipe, family, 5.0)
    with guidon.steer(pipe, "cfg(5)"):
        got = run(pipe, family)
        agree(own(pipe, family, 1.0), want)  # whatever its own weight
    agree(got, want)
    assert (own(pipe, family, 1.5) - want).abs().max() > 30 * (got - want).abs().max()  # there was something to see


@pytest.mark.parametrize("name", [name for name, family in EVERY.items() if family.negative])
def test_a_negative_prompt_stands_in_the_place_of_nothing(name: str) -> None:
    pipe, family = of(name)
    want = own(pipe, family, 4.0, **family.negative)
    for rule in ("cfg(4)", "negative(4)"):
        with guidon.steer(pipe, rule):
            agree(run(pipe, family, **family.negative), want)
    assert not torch.equal(want, own(pipe, family, 4.0))


@pytest.mark.parametrize("name", ["sd", "flux", "dit", "unclip"])
def test_at_weights_1_and_0_half_of_the_work_is_done(name: str) -> None:
    pipe, family = of(name)
    with guidon.steer(pipe, "cfg(1)") as steering:
        given, rows = run(pipe, family), steering.rows
    with guidon.steer(pipe, "cfg(3)") as steering:
        run(pipe, family)
    assert 2 * rows == steering.rows
    with guidon.steer(pipe, "cfg(0)") as steering:
        null = run(pipe, family)
    assert steering.rows == rows
    if name == "sd":
        agree(given, own(pipe, family, 1.0))  # where the pipeline asks given alone
        agree(null, own(pipe, family, 1.0, prompt=""))


def test_an_interval_saves_what_it_leaves_out(sd: Any) -> None:
    with guidon.steer(sd, "cfg(5, when=interval(0.5, 2))") as steering:
        run(sd, SD)
    assert (steering.forwards, steering.rows) == (4, 4 + 2)  # noise levels 4.1, 1.6, 0.7 and 0.04
    with guidon.steer(sd, "cfg(5)", batching="sequential") as steering:
        run(sd, SD)
    assert (steering.forwards, steering.rows) == (8, 8)


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux", "sd3"])
def test_batching_changes_nothing(name: str) -> None:
    pipe, family = of(name)
    rule, told = "cfg(4) | pag(2)", {"also": ["a bird", "a stone"]}
    with guidon.steer(pipe, rule) as joint:
        want = run(pipe, family)
    with guidon.steer(pipe, rule, batching="sequential") as sequential:
        agree(run(pipe, family), want)
    assert sequential.rows == joint.rows
    with guidon.steer(pipe, "conjunction([3, 2, -1])", **told):
        want = run(pipe, family)
    with guidon.steer(pipe, "conjunction([3, 2, -1])", **told, batching="sequential"):
        agree(run(pipe, family), want)


def test_every_image_has_its_own_weight(sd: Any) -> None:
    def noise(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    prompts = ["a red apple", "a blue cube"]
    with guidon.steer(sd, "cfg([1.5, 6])"):
        both = run(sd, SD, prompt=prompts, generator=noise(1, 2))
    for i, weight in enumerate((1.5, 6.0)):
        agree(both[i : i + 1], own(sd, SD, weight, prompt=prompts[i], generator=noise(i + 1)))
    with guidon.steer(sd, "cfg([1, 2, 3])"), pytest.raises(guidon.GuidonError, match="3 weights for 1 images"):
        run(sd, SD)


def test_further_prompts_are_what_they_say(sd: Any) -> None:
    """Two conditions that are one, with weights that sum to that of cfg."""
    want = own(sd, SD, 5.0)
    with guidon.steer(sd, "conjunction([2, 3])", also="a red apple") as steering:
        agree(run(sd, SD), want)
    assert steering.rows == 3 * 4
    with guidon.steer(sd, "avoid(5, push=2)"):  # and a negative that is nothing
        agree(run(sd, SD, negative_prompt=""), want)
    with guidon.steer(sd, "avoid(5, push=2)", negative=""):
        agree(run(sd, SD), want)
    generator = torch.Generator().manual_seed(0)
    run(sd, SD, generator=generator, guidance_scale=5.0)
    drawn, before = generator.get_state(), torch.get_rng_state()
    with guidon.steer(sd, "conjunction([2, 3])", also="a bird"):
        run(sd, SD, generator=generator.manual_seed(0))
    assert torch.equal(generator.get_state(), drawn)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------- the originals


@pytest.mark.parametrize("layer", ["mid", "up"])
def test_pag_is_that_of_its_authors(layer: str) -> None:
    original = seeded(functools.partial(stable_diffusion, "StableDiffusionPAGPipeline", pag_applied_layers=layer))
    pipe, (plain, _) = original(), of("sd", "DDIMScheduler")
    want = run(pipe, SD, guidance_scale=4.0, pag_scale=2.0)
    rule = "cfg(4) | pag(3)" if layer == "mid" else "cfg(4) | pag(3, layers=['up_blocks'])"
    with guidon.steer(plain, rule):
        agree(run(plain, SD), want)
    assert (want - own(plain, SD, 4.0)).abs().max() > 0.01


def test_pag_of_joint_attention_is_that_of_its_authors() -> None:
    networks = stable_diffusion_3_of("StableDiffusion3PAGPipeline", pag_applied_layers=["blocks.1"])
    family = EVERY["sd3"]
    want = run(networks, family, guidance_scale=4.0, pag_scale=2.0)
    plain, _ = of("sd3", "FlowMatchEulerDiscreteScheduler")
    with guidon.steer(plain, "cfg(4) | pag(3, layers=['transformer_blocks.1'])"):
        agree(run(plain, family), want)


def stable_diffusion_3_of(kind: str, **more: Any) -> Any:
    components = EVERY["sd3"].make().components
    return getattr(diffusers, kind)(**{name: part for name, part in components.items() if part is not None}, **more)


def test_skipped_layers_are_those_of_stable_diffusion_3() -> None:
    pipe, family = of("sd3", "FlowMatchEulerDiscreteScheduler")
    skipping = {
        "skip_guidance_layers": [1],
        "skip_layer_guidance_scale": 2.0,
        "skip_layer_guidance_start": 0.0,
        "skip_layer_guidance_stop": 1.1,
    }
    want = own(pipe, family, 4.0, **skipping)
    # its own range leaves out the first step, which has nothing after it
    first = diffusers.FlowMatchEulerDiscreteScheduler()
    first.set_timesteps(4)
    after = float(first.sigmas[1])
    with guidon.steer(
        pipe, f"cfg(4) | slg(3, layers=['transformer_blocks.1'], when=interval(0, {after / (1 - after) * 1.01}))"
    ):
        agree(run(pipe, family), want)
    with guidon.steer(pipe, "cfg(4)"), pytest.raises(NotSupported, match="guidance of its own"):
        run(pipe, family, **skipping)
    assert (want - own(pipe, family, 4.0)).abs().max() > 0.01


def test_autoguidance_moves_away_from_the_weaker_network(sd: Any) -> None:
    """A weaker network that is the same one changes nothing; away from one without text is cfg."""
    weak = SD.make()
    given = own(sd, SD, 1.0)
    for network in (weak, weak.unet):
        with guidon.steer(sd, "autoguidance(3)", weak=network):
            agree(run(sd, SD), given)
    with pytest.raises(BadValue, match="has no unet"):
        guidon.steer(sd, "autoguidance(3)", weak="another")
    with guidon.steer(sd, "autoguidance(3)"), pytest.raises(NotSupported, match="weak="):
        run(sd, SD)


def test_a_classifier_that_knows_nothing_changes_nothing(sd: Any) -> None:
    seen = []

    def quadratic(x: Tensor, level: Any) -> Tensor:
        seen.append(level.noise_level)
        return -0.01 * x.square().flatten(1).sum(1)

    want = own(sd, SD, 4.0)
    with guidon.steer(sd, "cfg(4) | classifier(1)", classifier=lambda x, level: (0 * x).flatten(1).sum(1)):
        agree(run(sd, SD), want)
    with guidon.steer(sd, "cfg(4) | classifier(1)", classifier=quadratic):
        assert (run(sd, SD) - want).abs().max() > 0.01
    assert seen == sorted(seen, reverse=True)
    with (
        guidon.steer(sd, "classifier(1, form='mean')", classifier=quadratic),
        pytest.raises(NotSupported, match="form eps goes with any"),
    ):
        run(sd, SD)


# --------------------------------------------------------------------------------------- everything else they do


def test_the_pipeline_is_as_it_was(sd: Any) -> None:
    def parts() -> list[dict[str, Any]]:
        return [dict(vars(part)) for part in (sd, sd.unet, sd.scheduler)]

    own(sd, SD, 2.0)
    kind, before = type(sd), parts()
    with guidon.steer(sd, "cfg(2)"):
        assert isinstance(sd, kind) and type(sd).__name__ == kind.__name__
        assert sd.steering.rule == guidon.CFG(2.0)
        run(sd, SD)

        def fail(*_: Any) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(sd, SD, callback_on_step_end=fail)
        assert [sorted(part) for part in parts()] == [sorted(part) for part in before]
    assert type(sd) is kind
    assert [sorted(part) for part in parts()] == [sorted(part) for part in before]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in sd.unet.modules())
    steering = guidon.steer(sd, "pag(2)")
    with pytest.raises(NotSupported, match="steered already"):
        guidon.steer(sd, "cfg(2)")
    run(sd, SD)
    steering.remove()
    steering.remove()
    assert type(sd) is kind
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in sd.unet.modules())


def test_a_steered_pipeline_is_saved_as_what_it_is(sd: Any, tmp_path: Any) -> None:
    with guidon.steer(sd, "cfg(2)"):
        sd.save_pretrained(tmp_path / "pipe")
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipe", safety_checker=None)
    assert type(again) is diffusers.StableDiffusionPipeline
    agree(own(again, SD, 2.0), own(sd, SD, 2.0), 1e-6)


def test_callbacks_are_called_and_may_end_guidance(sd: Any) -> None:
    def end_guidance(pipe: Any, index: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if index == 1:
            pipe._guidance_scale = 0.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        return tensors

    more = {"callback_on_step_end": end_guidance, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    want = own(sd, SD, 5.0, **more)
    with guidon.steer(sd, "cfg(5)") as steering:
        agree(run(sd, SD, **more), want)
    assert steering.rows == 2 + 2 + 1 + 1


def test_adapters_offloading_and_compiled_networks() -> None:
    pipe = SD.make()
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    add_hook_to_module(pipe.unet, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    want = own(pipe, SD, 5.0)
    assert (want - own(of("sd", "DDIMScheduler")[0], SD, 5.0)).abs().max() > 0.01
    with guidon.steer(pipe, "cfg(5)"):
        agree(run(pipe, SD), want)
    with guidon.steer(pipe, "pag(3)"):
        perturbed = run(pipe, SD)
    for compiled in (True, False):
        other = SD.make()
        other.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
        other.unet.load_state_dict(pipe.unet.state_dict())
        if compiled:
            other.unet = torch.compile(other.unet, backend="eager")
        else:
            other.unet.compile(backend="eager")
        with guidon.steer(other, "cfg(5)"):
            agree(run(other, SD), want)
        with guidon.steer(other, "pag(3)"):
            agree(run(other, SD), perturbed)
        agree(own(other, SD, 5.0), want)


def test_images_as_prompts() -> None:
    """An IP-Adapter beside the text."""
    pipe = SD.make()
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet)])
    images = {"ip_adapter_image_embeds": [torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(3))]}
    want = own(pipe, SD, 5.0, **images)
    with guidon.steer(pipe, "cfg(5)"):
        agree(run(pipe, SD, **images), want)
    with guidon.steer(pipe, "cfg(5, when=interval(0.5, 2)) | pag(2)") as steering:
        run(pipe, SD, **images)
    assert steering.rows == 6 + 4
    other = {"ip_adapter_image_embeds": [torch.flip(images["ip_adapter_image_embeds"][0], [2])]}
    assert (own(pipe, SD, 5.0, **other) - want).abs().max() > 1e-3


def ip_adapter(unet: Any) -> dict[str, dict[str, Tensor]]:
    """Return the weights of an adapter of one picture, whose tokens are 4."""
    generator = torch.Generator().manual_seed(1)
    layers: dict[str, Tensor] = {}
    for number, name in enumerate(name for name in unet.attn_processors if "attn2" in name):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for kind in ("k", "v"):
            width = attention.to_k.weight.shape[0]
            layers[f"{2 * number + 1}.to_{kind}_ip.weight"] = torch.randn(width, 32, generator=generator) / 6
    projection = {
        "proj.weight": torch.randn(4 * 32, 32, generator=generator) / 6,
        "proj.bias": torch.zeros(4 * 32),
        "norm.weight": torch.ones(32),
        "norm.bias": torch.zeros(32),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def test_half_precision(sd: Any) -> None:
    pipe = SD.make().to(torch.bfloat16)
    want = own(pipe, SD, 5.0)
    with guidon.steer(pipe, "cfg(5)"):
        agree(run(pipe, SD), want, 0.05)
    with guidon.steer(pipe, "cfg(5) | apg | rescale(0.5)"):
        assert run(pipe, SD).isfinite().all()


# ------------------------------------------------------------------------------------------------------ bad input


def test_a_perturbation_that_cannot_act_is_refused(sd: Any) -> None:
    pipe = SD.make()
    pipe.enable_attention_slicing()  # computes attention by hand
    with guidon.steer(pipe, "pag(3)"), pytest.raises(NotSupported, match="changes nothing"):
        run(pipe, SD)
    with guidon.steer(sd, "pag(3, layers=['mid_blok'])"), pytest.raises(NotSupported, match="mid_block"):
        run(sd, SD)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in sd.unet.modules())


def test_bad_input(sd: Any) -> None:
    with pytest.raises(NotSupported, match="nobody has said how"):
        guidon.steer(object(), "cfg(2)")
    with pytest.raises(NotSupported, match="has none of the networks"):
        guidon.steer(sd, "cfg(2)", layout=Layout({"transformer": "scheduler"}))
    with pytest.raises(UnknownName):
        guidon.steer(sd, "cgf(2)")
    with pytest.raises(BadValue, match="joint or sequential"):
        guidon.steer(sd, "cfg(2)", batching="parallel")
    with pytest.raises(BadValue, match="a rule is"):
        guidon.steer(sd, object())  # type: ignore[arg-type]
    with guidon.steer(sd, "conjunction([2, 3])"), pytest.raises(NotSupported, match="also="):
        run(sd, SD)
    with guidon.steer(sd, "negative(2)"), pytest.raises(NotSupported, match="negative_prompt"):
        run(sd, SD)
    assert type(sd) is diffusers.StableDiffusionPipeline
    dit, family = of("dit")
    with guidon.steer(dit, "conjunction([2, 3])", also=torch.ones(3)), pytest.raises(BadValue, match="class_labels"):
        run(dit, family)


def test_a_pipeline_that_nobody_knows_can_be_described(sd: Any) -> None:
    class Unheard(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        pass

    pipe = Unheard(**{name: sd.components[name] for name in sd.components}, requires_safety_checker=False)
    with pytest.raises(NotSupported, match="Unheard"):
        guidon.steer(pipe, "cfg(5)")
    with guidon.steer(pipe, "cfg(5)", layout=Layout()):
        agree(run(pipe, SD), own(sd, SD, 5.0))


def test_a_network_that_was_distilled_has_nothing_to_be_guided_away_from() -> None:
    from support.tiny_pipelines import unet

    pipe = seeded(functools.partial(stable_diffusion, unet=unet(time_cond_proj_dim=8)))()
    with guidon.steer(pipe, "cfg(5)"), pytest.raises(NotSupported, match="one half alone"):
        run(pipe, SD)
