"""What diffusers' schedulers do, in guidon's terms: the solver, the steps, and where the network is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from parity.diffusers_levels import (
    HALVED,
    Config,
    clipped,
    ended,
    factor,
    halved_flow,
    indices,
    respread,
    shifted_times,
    table,
    terminated,
    through,
    unknown,
)
from parity.golden import Case

from guidon.guidance import Moment
from guidon.noise import EDM, EDMOutput, EpsOutput, Flow, Level, Output, VelocityOutput, VOutput, X0Output
from guidon.noise.grids import NOISIEST, Exponential, Finite, Grid, Karras
from guidon.solvers import (
    DDIM,
    DDPM,
    DEIS,
    DPM2,
    LMS,
    PLMS,
    Churn,
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp3M,
    DPMppSinglestep,
    DPMSolver2M,
    Euler,
    EulerAncestral,
    Heun,
    Solver,
    UniPC,
)

OUTPUTS: dict[str, Output] = {
    "epsilon": EpsOutput(),
    "sample": X0Output(),
    "v_prediction": VOutput(),
    "flow_prediction": VelocityOutput(),
    "flow": VelocityOutput(),
}
KNOWN = """
    beta_schedule beta_start beta_end num_train_timesteps rescale_betas_zero_snr prediction_type timestep_spacing steps_offset
    final_sigmas_type set_alpha_to_one lambda_min_clipped variance_type clip_sample clip_sample_range thresholding
    dynamic_thresholding_ratio sample_max_value use_karras_sigmas use_exponential_sigmas use_beta_sigmas use_lu_lambdas
    use_flow_sigmas flow_shift algorithm_type solver_order solver_type lower_order_final euler_at_final predict_x0
    disable_corrector skip_prk_steps sigma_min sigma_max sigma_data sigma_schedule rho shift use_dynamic_shifting
    time_shift_type shift_terminal stochastic_sampling interpolation_type
"""
MEANT = {
    "interpolation_type": ("linear",),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "learned_range"),
}


@dataclass(frozen=True)
class Plan:
    """What a scheduler does.

    Args:
        asked: the level at which the network is asked, for a moment: that of the state but where the library has it otherwise.
        ends_noisy: whether it adds noise after the last step.
    """

    solver: Solver
    steps: list[Moment]
    asked: Callable[[Moment], Level] = lambda at: at.here
    ends_noisy: bool = False


def plan(case: Case) -> Plan:
    """Return the plan of a case, or skip."""
    params, config = case.params, case.params["config"]
    name = params["scheduler"].removesuffix("Scheduler")
    for key, value in config.items():
        if (value and key not in KNOWN.split()) or value not in MEANT.get(key, (value,)):
            unknown(name, f"{key} {value}")
    args = {key: value for key, value in params["set_timesteps_args"].items() if value is not None}
    planners = {
        **dict.fromkeys(("DDPM", "DDIM", "DDIMInverse", "PNDM"), by_index),
        **dict.fromkeys(
            ("EulerDiscrete", "HeunDiscrete", "EulerAncestralDiscrete", "LMSDiscrete", "KDPM2Discrete"), exploding
        ),
        **dict.fromkeys(HALVED, preserving),
        **dict.fromkeys(("EDMEuler", "EDMDPMSolverMultistep"), edm),
        **dict.fromkeys(("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"), flow),
    }
    if name not in planners:
        pytest.skip(f"no solver like {params['scheduler']}")
    return planners[name](name, config, params["num_inference_steps"], args, params["step_args"])


def output_of(case: Case) -> Output:
    """Return what the raw tensor of a case's network means."""
    if case.params["scheduler"].startswith("EDM"):
        return EDMOutput(case.params["config"].get("sigma_data", 0.5))
    if case.params["prediction_type"] not in OUTPUTS:
        pytest.skip(f"no output {case.params['prediction_type']}")
    return OUTPUTS[case.params["prediction_type"]]


def chain(levels: Sequence[Level]) -> list[Moment]:
    return pairs(levels[:-1], levels[1:])


def pairs(here: Sequence[Level], there: Sequence[Level]) -> list[Moment]:
    return [Moment(a, b, i, len(here)) for i, (a, b) in enumerate(zip(here, there, strict=True))]


def by_index(name: str, config: Config, n: int | None, args: Config, step_args: Config) -> Plan:
    """Steps on a table: DDPM goes to the next entry; the others always N // n on, and past the end to the image or the first entry."""
    allowed = {"DDPM": {"timesteps"}, "DDIM": {"eta", "use_clipped_model_output"}}.get(name, set())
    if {*args, *step_args} - allowed:
        unknown(name, ", ".join({*args, *step_args} - allowed))
    process = table(config)
    times = [float(t) for t in args["timesteps"]] if args else indices(name, config).times(process, n)
    here = [process.level(t) for t in times]
    if name == "DDPM":
        words = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
        solver = DDPM(words[config.get("variance_type", "fixed_small")])
        # the library adds noise wherever the index is above 0, in the last step too
        return Plan(solver, pairs(here, [*here[1:], process.clean]), ends_noisy=times[-1] > 0)
    stride = process.steps // len(times)
    last = process.clean if config.get("set_alpha_to_one", name != "PNDM") else process.level(0.0)
    there = [process.level(t - stride) if t >= stride else last for t in times]
    if name == "DDIMInverse":  # upwards; the library asks at the level that the step goes to
        return Plan(Euler(), pairs(there[::-1], here[::-1]), lambda at: at.there)
    if name == "DDIM":
        return Plan(DDIM(step_args.get("eta", 0.0)), pairs(here, there))
    if not config.get("skip_prk_steps"):
        unknown(name, "Runge-Kutta steps")
    if last.sigma == 0 or config.get("prediction_type", "epsilon") != "epsilon":
        unknown(name, "set_alpha_to_one or v_prediction: guidon weighs noises, and ends with Euler's step")
    return Plan(PLMS(), pairs(here, there))


def exploding(name: str, config: Config, n: int, args: Config, step_args: Config) -> Plan:
    """The family of Euler keeps z = x / alpha, so it walks the table's noise levels on EDM's process."""
    if args:
        unknown(name, ", ".join(args))
    solvers: dict[str, Solver] = {
        "EulerDiscrete": Euler(),
        "HeunDiscrete": Heun(),
        "EulerAncestralDiscrete": EulerAncestral(),
        "LMSDiscrete": LMS(min(step_args.get("order", 4), 4), through=True),
        "KDPM2Discrete": DPM2(),
    }
    process, grid = table(config), Finite(indices(name, config))
    high, *_, low, _ = (float(level.noise_level) for level in grid.levels(process, n))
    levels = ended(name, respread(config, low, high) or grid, config, process, n)
    levels = [EDM().level(float(level.noise_level)) for level in levels]
    return churned(name, solvers[name], chain(levels), step_args)


def churned(name: str, solver: Solver, steps: list[Moment], step_args: Config) -> Plan:
    """Return the plan of a solver with churn, if there is any."""
    known = {"s_churn", "s_tmin", "s_tmax", "s_noise"} if name in ("EulerDiscrete", "EDMEuler") else set()
    known |= {"order"} if name == "LMSDiscrete" else set()
    if set(step_args) - known:
        unknown(name, ", ".join(set(step_args) - known))
    if not step_args.get("s_churn"):
        return Plan(solver, steps)
    low, high = step_args.get("s_tmin", 0.0), step_args.get("s_tmax", math.inf)
    solver = Churn(solver, step_args["s_churn"], low, high, step_args.get("s_noise", 1.0))
    return Plan(solver, steps, lambda at: steps[at.index].here)  # the library asks before it adds the noise


def preserving(name: str, config: Config, n: int, args: Config, step_args: Config) -> Plan:
    """The DPM family, on the table at the noise levels of its indices or others, or on flow."""
    if step_args or set(args) - {"mu"}:
        unknown(name, ", ".join([*step_args, *args]))
    others = {"UniPCMultistep": unipc, "DEISMultistep": deis, "DPMSolverSinglestep": singlestep}
    solver = others.get(name, multistep)(config, n)
    if config.get("use_flow_sigmas"):
        levels: Sequence[Level] = halved_flow(name, config, n, args)
    else:
        levels = halved_table(name, config, n)
    if levels[-1] == levels[-2] and isinstance(solver, UniPC) and solver.end == "full":
        unknown(name, "a last step of no length and of higher order, which is 0 / 0")
    return Plan(solver, chain(levels))


def halved_table(name: str, config: Config, n: int) -> Sequence[Level]:
    """Return the DPM family's levels of a table."""
    process = table(config)
    low, high = (float(process.noise_level(t)) for t in (0.0, process.t_max))
    grid = respread(config, low, NOISIEST if math.isinf(high) else high)
    if grid is None and config.get("lambda_min_clipped", -math.inf) > -math.inf:
        return clipped(name, config, process, n)
    return ended(name, grid or Finite(indices(name, config)), config, process, n)


def multistep(config: Config, n: int) -> Solver:
    order, kind = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    form = config.get("solver_type", "midpoint")
    lower, euler = config.get("lower_order_final", True) and n < 15, config.get("euler_at_final", False)
    end = "lower" if lower or euler else "clean"
    if order == 3 and euler and not lower:
        unknown(kind, "euler_at_final and solver_order 3: the order falls from 3 to 1")
    solvers: dict[tuple[str, int], Solver] = {
        ("dpmsolver++", 1): Euler(),
        ("dpmsolver++", 2): DPMpp2M(form, end),
        ("dpmsolver++", 3): DPMpp3M(form, end),
        ("dpmsolver", 1): Euler(),
        ("dpmsolver", 2): DPMSolver2M(form, end),
        ("sde-dpmsolver++", 1): DDPM("small"),
        ("sde-dpmsolver++", 2): DPMpp2MSDE(1.0, form, end),
    }
    if (kind, order) not in solvers:
        unknown(kind, f"solver_order {order}")
    return solvers[kind, order]


def singlestep(config: Config, n: int) -> Solver:
    order, kind = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    form = config.get("solver_type", "midpoint")
    if kind != "dpmsolver++" or form == "heun":
        unknown("DPMSolverSinglestep", f"{kind}, {form}")
    full = n % order == 0 and config.get("final_sigmas_type") == "sigma_min" and not config.get("lower_order_final")
    return DPMppSinglestep(order, "full" if full else "lower")


def unipc(config: Config, n: int) -> Solver:
    order, off = config.get("solver_order", 2), config.get("disable_corrector", [])
    if order > 3 or sorted(off) != list(range(len(off))):
        unknown("UniPCMultistep", f"solver_order {order}, disable_corrector {off}")
    return UniPC(
        order,
        "bh1" if config.get("solver_type") == "bh1" else "bh2",  # the library takes the words of other solvers for bh2
        "x0" if config.get("predict_x0", True) else "eps",
        len(off),
        "lower" if config.get("lower_order_final", True) else "full",
    )


def deis(config: Config, n: int) -> Solver:
    if config.get("solver_type", "logrho") != "logrho" or config.get("algorithm_type", "deis") != "deis":
        unknown("DEISMultistep", f"{config.get('algorithm_type')}, {config.get('solver_type')}")
    return DEIS(config.get("solver_order", 2), "lower" if config.get("lower_order_final", True) and n < 15 else "clean")


def edm(name: str, config: Config, n: int, args: Config, step_args: Config) -> Plan:
    """EDM's process with levels of its own range."""
    if args:
        unknown(name, ", ".join(args))
    low, high = config.get("sigma_min", 0.002), config.get("sigma_max", 80.0)
    schedule = config.get("sigma_schedule", "karras")
    grid: Grid = Exponential(low, high) if schedule == "exponential" else Karras(config.get("rho", 7.0), low, high)
    levels = ended(name, grid, config, EDM(sigma_min=low, sigma_max=high), n)
    return churned(name, Euler() if name == "EDMEuler" else multistep(config, n), chain(levels), step_args)


def flow(name: str, config: Config, n: int | None, args: Config, step_args: Config) -> Plan:
    """Rectified flow; Heun's steps are straight in its time."""
    if config.get("stochastic_sampling"):
        pytest.skip(
            "stochastic_sampling re-noises with fresh noise alone, which does not converge to the data's distribution"
        )
    if step_args or set(args) - {"mu", "sigmas"}:
        unknown(name, ", ".join([*step_args, *args]))
    solver = Euler() if name == "FlowMatchEulerDiscrete" else Heun(clock=Flow())
    shift, lowest = factor(name, config, args, "shift"), 1 / config.get("num_train_timesteps", 1000)
    if not config.get("use_dynamic_shifting"):
        lowest = float(through(shift, np.array(lowest)))  # the library's own: the shift hits the last time twice
    times = through(shift, np.array(args["sigmas"])) if "sigmas" in args else shifted_times(lowest, shift, n)
    times = terminated(config, times)
    grid = respread(config, times[-1], times[0])
    if grid is not None:  # the library's own: times spaced as noise levels are
        times = np.array([float(level.t) for level in grid.levels(EDM(), len(times))[:-1]])
    return Plan(solver, chain([*(Flow().level(float(t)) for t in times), Flow().clean]))
