"""GLIDE's networks and its sampling loops: converted, saved, loaded, and run by the engine as a user's request is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from parity.golden import GOLDEN, settings, tensors, tolerance
from parity.test_openai_process import chain, table
from safetensors.torch import load_file
from support.numbers import agree
from torch import Tensor

from guidon.app.conversion import Plan, convert
from guidon.checkpoints.glide import CLASSES, VOCABULARY, network_blueprint
from guidon.checkpoints.reading import State
from guidon.conditioning import Context, Texts
from guidon.conditioning.images import enlarged, known_pixels
from guidon.conditioning.tokenizer import Tokenizer, TokenizerConfig
from guidon.guidance import CFG, Rule, Threshold
from guidon.model import Model, load
from guidon.model_request import beside_image, conditions
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.sampling.known import Known
from guidon.solvers import DDIM, DDPM, Solver

NETWORKS = [path.stem for path in sorted(GOLDEN.glob("glide_*.json")) if settings(path.stem).get("class") in CLASSES]
LOOPS = [case for case in NETWORKS if "loop" in settings(case)]
GUIDED = [
    pytest.param(path.stem, case, id=f"{path.stem}-{case['key']}")
    for path in sorted(GOLDEN.glob("glide_cfg_sampling*.json"))
    for case in settings(path.stem)["cases"]
]

pytestmark = pytest.mark.skipif(not NETWORKS, reason=f"no GLIDE fixtures in {GOLDEN}; set GUIDON_GOLDEN")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return {case: converted(case, tmp_path_factory.mktemp(case)) for case in NETWORKS}


def converted(case: str, folder: Path) -> Model:
    """Return the model of a case, once it went to the disk and back."""
    told, golden = settings(case), tensors(case)
    arguments = {name: value for name, value in told["config"].items() if name != "n_vocab"}
    small = golden["low_res"].shape[2] if "low_res" in golden else None
    size = told["config"].get("n_vocab", VOCABULARY)
    described = network_blueprint(
        arguments, kind=told["class"], side=golden["x"].shape[2], vocabulary=size, small=small
    )
    words = tokenizers.models.WordLevel(
        {str(i): i for i in range(size)}, unk_token="0"
    )  # a stand-in, as in the fixtures
    tokenizer = Tokenizer(
        tokenizers.Tokenizer(words), TokenizerConfig(context=told["config"]["text_ctx"], padding=size - 1)
    )
    state = State(load_file(GOLDEN / told["weights"]))
    model = convert(state, Plan("glide", case, described))
    model.tokenizer = tokenizer  # type: ignore[assignment]
    model.save_pretrained(folder / "model")
    return load(folder / "model")


def texts(model: Model, tokens: Tensor, mask: Tensor) -> Texts:
    assert model.tokenizer is not None
    return Texts(tokens, mask, model.tokenizer.empty)


def beside(golden: dict[str, Tensor], prefix: str, model: Model, rows: int) -> Tensor | None:
    """Return what the network is shown beside the noisy image."""
    parts = []
    if model.config.inpaint:
        known = golden.get(f"{prefix}inpaint_image"), golden.get(f"{prefix}inpaint_mask")
        image, mask = (None if part is None else part[:rows] for part in known)
        parts = known_pixels(model.shape, rows, image, None if mask is None else 1 - mask)
    if model.low_res is not None:
        parts.append(enlarged(golden[f"{prefix}low_res"][:rows], model.shape[1:], rows))
    return torch.cat(parts, 1) if parts else None


@torch.no_grad()
def ask(model: Model, told: Texts, golden: dict[str, Tensor], time: str, spatial: Tensor | None) -> Tensor:
    """Return what the network says to a request, whose keys and values are made beforehand."""
    context = conditions(model, told, list(range(len(told))), {})["given"]
    if spatial is not None:
        context = beside_image({"given": context}, spatial)["given"]
    assert isinstance(context, Context) and context.projected is not None
    return model.network(golden["x"], golden[time], context)


@pytest.mark.parametrize("case", NETWORKS)
def test_outputs_agree(models: dict[str, Model], case: str) -> None:
    golden, model = tensors(case), models[case]
    told = texts(model, golden["tokens"], golden["mask"])
    shown = beside(golden, "", model, len(told))
    variants: dict[str, tuple[Texts, str, Tensor | None]] = {
        "out": (told, "t_int", shown),
        "out_int": (told, "t_int", shown),
        "out_float": (told, "t_float", shown),
        "out_all_true_mask": (texts(model, told.tokens, torch.ones_like(told.mask)), "t_int", shown),
    }
    if model.config.inpaint:
        nothing = torch.cat(known_pixels(model.shape, len(told), None, None), 1)
        if shown is not None and shown.shape[1] > nothing.shape[1]:
            nothing = torch.cat([nothing, shown[:, nothing.shape[1] :]], 1)
        variants["out_no_inpaint_inputs"] = (told, "t_int", nothing)
    asked = [key for key in variants if key in golden]
    assert asked
    for key in asked:
        agree(
            ask(model, variants[key][0], golden, *variants[key][1:]),
            golden[key],
            key,
            rtol=1e-5,
            atol=tolerance(case, key),
        )


@pytest.mark.parametrize("case", [case for case in NETWORKS if "mask_flipped" in tensors(case)])
def test_what_is_kept_of_a_text_depends_on_its_mask(models: dict[str, Model], case: str) -> None:
    """The original, told the same tokens under another mask, repeats itself until its cache is deleted."""
    golden, model = tensors(case), models[case]
    masks = torch.cat([golden["mask"], golden["mask_flipped"]])
    both = texts(model, golden["tokens"].repeat(2, 1), masks)
    twice = {key: golden[key].repeat(2, *[1] * (golden[key].ndim - 1)) for key in ("x", "t_int")}
    shown = beside(golden, "", model, len(golden["x"]))
    out = ask(model, both, twice, "t_int", None if shown is None else shown.repeat(2, 1, 1, 1))
    first, second = out.chunk(2)
    agree(first, golden["out_int"], "out_int", rtol=1e-5, atol=tolerance(case, "out_int"))
    key = "out_after_del_cache_other_mask"
    agree(second, golden[key], key, rtol=1e-5, atol=tolerance(case, key))


@pytest.mark.parametrize("case", [case for case in NETWORKS if "xf_out" in tensors(case)])
def test_texts_are_encoded_alike(models: dict[str, Model], case: str) -> None:
    golden, model = tensors(case), models[case]
    with torch.no_grad():
        context = model.encode(texts(model, golden["tokens"], golden["mask"]))
    assert context.vector is not None and context.tokens is not None and context.mask is None
    agree(context.vector, golden["xf_proj"], "xf_proj", rtol=1e-5, atol=tolerance(case, "xf_proj"))
    agree(context.tokens.transpose(1, 2), golden["xf_out"], "xf_out", rtol=1e-5, atol=tolerance(case, "xf_out"))


def solver_of(sampler: str) -> Solver:
    """Return the solver that a fixture names: "ddpm (p_sample_loop)", or "ddim eta 0"."""
    name, *words = sampler.split()
    if name == "ddpm":
        return DDPM("learned")
    assert name == "ddim" and words[0] == "eta"
    return DDIM(float(words[1]))


def sampled(
    model: Model,
    told: dict[str, Any],
    golden: dict[str, Tensor],
    prefix: str,
    *,
    weight: float | None,
    clip: bool,
    process: dict[str, Any],
) -> list[Tensor]:
    """Return the state after every step of a loop, for the images that carry texts."""
    tokens, mask = (golden.get(prefix + name, golden.get(name)) for name in ("tokens", "mask"))
    assert tokens is not None and mask is not None
    rows = len(golden[f"{prefix}x_T"]) // (1 if weight is None else 2)
    given = texts(model, tokens[:rows], mask[:rows])
    if weight is not None:  # what the doubled batch says in its second half is the model's own null
        assert torch.equal(given.null().tokens, tokens[rows:]) and torch.equal(given.null().mask, mask[rows:])
    contexts = conditions(model, given, list(range(rows)), {})
    if (shown := beside(golden, prefix, model, rows)) is not None:
        contexts = beside_image(contexts, shown)
    table_ = table(process)
    levels = chain(process, table_)[::-1]
    assert [table_.clock(level.t) for level in levels[:-1]] == told["t_shown_to_model_in_call_order"]
    rule: Rule = CFG(1.0 if weight is None else weight)
    noise = [draw[:rows] for draw in golden.get(f"{prefix}noise", [])]
    run = Trajectory(
        golden[f"{prefix}x_T"][:rows],
        levels,
        solver_of(told["sampler"]),
        rule | Threshold() if clip else rule,
        contexts,
        RecordedNoise(noise),
        known=Known.among(shown, model.shape[0]) if shown is not None and model.config.inpaint else None,
    )
    engine, states = Engine({"main": model.denoiser}), []
    engine.join(run)
    while not run.done:
        engine.round()
        states.append(run.x)
    assert engine.forwards == len(levels) - 1  # given and null share each
    return states


@pytest.mark.parametrize(("name", "case"), GUIDED)
def test_guided_loops(models: dict[str, Model], name: str, case: dict[str, Any]) -> None:
    told, golden, key = settings(name), tensors(name), case["key"]
    states = sampled(
        models[told["model"]],
        told,
        golden,
        "",
        weight=case["guidance_scale"],
        clip=case["clip_denoised"],
        process=told["diffusion"],
    )
    want = golden[f"{key}/sample_full"][: told["batch"]]
    agree(states[-1], want, "sample", rtol=1e-5, atol=tolerance(name, f"{key}/sample_full"))
    if f"{key}/steps" in golden:
        agree(torch.stack(states), golden[f"{key}/steps"], "steps", rtol=1e-5, atol=tolerance(name, f"{key}/steps"))


@pytest.mark.parametrize("case", LOOPS)
def test_loops_of_upsamplers_and_completers(models: dict[str, Model], case: str) -> None:
    told, golden = settings(case)["loop"], tensors(case)
    states = sampled(
        models[case],
        told,
        golden,
        "loop/",
        weight=told.get("guidance_scale", told.get("guidance")),
        clip=told["clip_denoised"],
        process=told,
    )
    key = "loop/sample_full" if "loop/sample_full" in golden else "loop/sample"
    want = golden[key][: len(states[-1])]
    agree(states[-1], want, key, rtol=1e-5, atol=tolerance(case, key))
