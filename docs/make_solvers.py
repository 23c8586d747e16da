"""Writes docs/solvers.md, a page about every solver and grid, from the registry: ``python docs/make_solvers.py``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from make_rules import _safe as safe

import guidon.noise.grids  # noqa: F401  registers them
from guidon import registry
from guidon.app.list_command import arguments
from guidon.app.rule_cards import read_docstring
from guidon.app.solver_cards import LIMITED, SolverCard, solver_cards

DOCS = Path(__file__).parent
OPENING = """<!-- written by docs/make_solvers.py; do not edit -->
# Solvers and grids

A solver says how to move from one noise level to the next, a grid which levels there are:
`guidon sample MODEL --solver dpmpp-2m --grid karras`, or `model.sample(..., solver="unipc(3)", grid="ends(karras, at='least')")`. Every
solver follows every rule, but for those in its section; every process shares one code path, for solvers work in noise level
sigma / alpha.

## Which solver?

| you want | take |
| --- | --- |
| good images in 10 to 30 evaluations | `dpmpp-2m`, `deis` or `unipc`, one evaluation a step |
| a reference with many steps | `heun`, two evaluations a step; `heun(clock=flow)` steps in the time of rectified flow, with less error |
| what DDPM or DDIM papers did | `ddpm('small')`, `ddpm('large')`, `ddim(eta)` |
| noise that repairs errors of the network, in 20 steps or more | `churn(heun)`, `dpmpp-2m-sde`, `dpmpp-sde`, `euler-ancestral` |
| CFG++ | a solver named under `cfgpp` in [Guidance methods](rules.md#cfgpp) |
| to know what guidance converges to | `heun` for the ODE, `ddpm` for the SDE: [the lab](lab/index.md) |
| samples of a sharpened distribution | `pcg(16)`, as many corrections as one can pay: [predictor-corrector](lab/predictor-corrector.md) |

"""
CONVENTIONS = """## Where runs begin and end, by the original's name

| original | here |
| --- | --- |
| k-diffusion `get_sigmas_karras`, `_exponential`, `_polyexponential`, `_vp` | `karras`, `exponential`, `polyexponential(2)`, `vp` |
| k-diffusion without the final 0 | `ends(GRID, at='last')` |
| diffusers `final_sigmas_type="sigma_min"`, DDIM `set_alpha_to_one=False` | `ends(GRID, at='least')` |
| diffusers `timestep_spacing` linspace, leading, trailing | `linspace`, `leading(1)` with its `steps_offset`, `trailing` |
| linspace of DDPM and DDIM, which rounds | `linspace(whole=true)`; DDIM goes down N // n from each timestep, which only leading gives |
| spacings of DPM-Solver, UniPC and DEIS (n + 1 points) | `linspace(spare=1, whole=true)`, `leading(1, spare=1)` |
| diffusers `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas` with linspace | `karras`, `exponential`, `beta` |
| diffusers `solver_type="heun"`; `lower_order_final` (below 15 steps) | `dpmpp-2m(form='heun')`; `dpmpp-2m(end='lower')` |
| zero terminal SNR with 2^-24 of the signal left (diffusers' sigma-based solvers) | `finite(GRID)` |
| flow `shift` (diffusers shifts the last time twice) | `shifted(3)` |
| OpenAI's `timestep_respacing` | `respaced('ddim25')` |
| EDM's sampler | `--solver "churn(heun)" --grid karras` |
| levels that meet the edges of an interval rule | `aligned(GRID, [0.3, 5])` |
"""


def page() -> str:
    """Return the page as it should be now."""
    cards = solver_cards()
    refused = "".join(f"\n- `{text}`: {safe(registry.parse('rule', text).why_only)}." for text in LIMITED)
    parts = [
        OPENING,
        _nearest(),
        "## Solvers\n\nOrder on the probability-flow ODE, 1 with fresh noise, with default settings; evaluations a step.\n",
        "| name | order | evaluations | noise | |\n| --- | ---: | ---: | --- | --- |",
        *(_row(card) for card in cards),
        f"\nRules that not every solver follows, and why:\n{refused}\n",
        *(_section(card) for card in cards),
        CONVENTIONS,
        "## Grids\n",
        *(_grid(name, member) for name, member in registry.members("grid")),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _nearest() -> str:
    """Return what the lab measured, in a few sentences."""
    account = json.loads((DOCS / "lab/orders.json").read_text(encoding="utf-8"))
    errors = {row["solver"]: row["error_guided"] for row in account["tables"]["deterministic"]}
    first = sorted(errors, key=errors.__getitem__)[:4]
    said = ", ".join(f"`{name}` ({errors[name]:.2g})" for name in (*first, "unipc", "dpmpp-2m", "euler", "heun"))
    return (
        "Orders and errors of all of them, measured against exact endpoints: [the order of every solver](lab/orders.md). There, at 20 "
        f"guided evaluations, the error is {said}. Nearest to the ODE need not be what looks best on a trained network, which has errors "
        "of its own.\n"
    )


def _row(card: SolverCard) -> str:
    noise = "fresh" if card.stochastic else "none"
    return f"| [{card.name}](#{card.name}) | {card.order} | {card.evaluations} | {noise} | {safe(card.summary)} |"


def _section(card: SolverCard) -> str:
    blocks = [f"### {card.name}", f"`{card.text}`", safe(card.summary), *map(safe, card.details)]
    if card.arguments:
        blocks.append("\n".join(f"- `{name}`: {safe(about)}" for name, about in card.arguments.items()))
    if card.refuses:
        blocks.append(
            "**Refuses:** " + "; ".join(f"`{rule}`" if "every" not in rule else rule for rule in card.refuses)
        )
    if card.source:
        blocks.append(f"**Source:** {safe(card.source)}")
    return "\n\n".join(blocks) + "\n"


def _grid(name: str, member: Any) -> str:
    summary, details, about, source = read_docstring(inspect.getdoc(member) or "")
    said = ", ".join(arguments(member))
    blocks = [f"### {name}", f"`{name}({said})`" if said else f"`{name}`", safe(summary), *map(safe, details)]
    if about:
        blocks.append("\n".join(f"- `{key}`: {safe(text)}" for key, text in about.items()))
    if source:
        blocks.append(f"**Source:** {safe(source)}")
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    (DOCS / "solvers.md").write_text(page(), encoding="utf-8")
