"""The levels of diffusers' schedulers, by guidon's grids; where they are made by hand, a comment says what the library's own is."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
import pytest

from guidon.noise import Flow, Level, Process, VPTable
from guidon.noise.grids import Beta, Ends, Exponential, Grid, Karras, Leading, Linspace, LogSNR, Shifted, Trailing

Config = dict[str, Any]
Times = np.ndarray[Any, np.dtype[np.float64]]
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
LEADING = ("DDPM", "DDIM", "DDIMInverse", "PNDM")  # by default; the others linspace
HALVED = (
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "UniPCMultistep",
    "DEISMultistep",
)  # n + 1 points, the last left out


def unknown(scheduler: str, what: str) -> NoReturn:
    pytest.skip(f"{scheduler} with {what}")


def table(config: Config) -> VPTable:
    """Return the process of a configuration."""
    schedule = config.get("beta_schedule", "linear")
    if schedule not in SCHEDULES:
        pytest.skip(f"no table {schedule}")
    ends = (None, None)
    if schedule != "squaredcos_cap_v2":
        ends = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    size = config.get("num_train_timesteps", 1000)
    return VPTable(SCHEDULES[schedule], size, *ends, zero_snr=config.get("rescale_betas_zero_snr", False))


def indices(name: str, config: Config) -> Leading | Linspace | Trailing:
    """Return the grid of a scheduler's timesteps."""
    spacing = config.get("timestep_spacing", "leading" if name in LEADING else "linspace")
    spare = int(name in HALVED)
    if spacing == "leading":
        return Leading(config.get("steps_offset", 0), spare)
    if spacing == "trailing":
        return Trailing()
    if spacing != "linspace":
        unknown(name, f"timestep_spacing {spacing}")
    return Linspace(spare, whole=name in (*LEADING, *HALVED))


def respread(config: Config, low: float, high: float) -> Grid | None:
    """Return the grid that replaces the noise levels of the timesteps, or None."""
    grids = {
        "use_karras_sigmas": Karras(7.0, low, high),
        "use_exponential_sigmas": Exponential(low, high),
        "use_beta_sigmas": Beta(0.6, 0.6, low, high),
        "use_lu_lambdas": LogSNR(low, high),
    }
    chosen = [grid for key, grid in grids.items() if config.get(key)]
    return chosen[0] if chosen else None


def ended(name: str, grid: Grid, config: Config, process: Process, n: int) -> tuple[Level, ...]:
    """Return the levels of a grid, and the last one of a configuration."""
    last = config.get("final_sigmas_type", "sigma_min" if name == "DEISMultistep" else "zero")
    if last not in ("zero", "sigma_min"):
        unknown(name, f"final_sigmas_type {last}")
    levels, ended = grid.levels(process, n), Ends(grid, "clean" if last == "zero" else "least").levels(process, n)
    if levels[:-1] == ended[:-1]:
        return ended
    return (*levels[:-1], levels[-2])  # the library stays a step where it already is at the least


def clipped(name: str, config: Config, process: VPTable, n: int) -> list[Level]:
    """Return levels with the noisiest indices cut off; the library's own: guidon's grids have the whole process."""
    if not isinstance(indices(name, config), Linspace):
        unknown(name, "lambda_min_clipped and a spacing other than linspace")
    log_snr = [-math.log(process.noise_level(float(t))) for t in reversed(range(process.steps))]
    noisiest = process.steps - 1 - int(np.searchsorted(log_snr, config["lambda_min_clipped"]))
    times = np.linspace(0, noisiest, n + 1).round()[:0:-1]
    last = process.clean if config.get("final_sigmas_type", "zero") == "zero" else process.level(0.0)
    return [*(process.level(float(t)) for t in times), last]


def halved_flow(name: str, config: Config, n: int, args: Config) -> list[Level]:
    """Return the DPM family's levels of flow."""
    shift, steps = factor(name, config, args, "flow_shift"), config.get("num_train_timesteps", 1000)
    if name == "UniPCMultistep":
        times = terminated(config, shifted_times(1 / steps, shift, n, spare=1))
        times[0] = min(times[0], 1 - 1e-6)  # the library's own: it divides by what signal is left
    else:  # the library's own: even times from 1 - 1 / N down to 0
        times = through(shift, np.linspace(0, 1 - 1 / steps, n + 1)[:0:-1])
    levels = [Flow().level(float(t)) for t in times]
    return [*levels, Flow().clean if config.get("final_sigmas_type", "zero") == "zero" else levels[-1]]


def factor(name: str, config: Config, args: Config, key: str) -> float:
    """Return what the noise levels of flow are multiplied by."""
    if not config.get("use_dynamic_shifting"):
        return config.get(key, 1.0)
    kinds = {"exponential": math.exp, "linear": float}
    kind = config.get("time_shift_type", "exponential")
    if kind not in kinds:
        unknown(name, f"time_shift_type {kind}")
    return kinds[kind](args["mu"])


def shifted_times(lowest: float, shift: float, n: int, spare: int = 0) -> Times:
    """Return even times of flow from 1 down, shifted."""
    if lowest != Flow().t_min:
        return through(shift, np.linspace(1, lowest, n + spare)[:n])
    return np.array([float(level.t) for level in Shifted(shift, Linspace(spare)).levels(Flow(), n)[:-1]])


def through(shift: float, times: Times) -> Times:
    return shift * times / (1 + (shift - 1) * times)


def terminated(config: Config, times: Times) -> Times:
    """Return times stretched so that the last one is that of the configuration."""
    return 1 - (1 - times) * (1 - config["shift_terminal"]) / (1 - times[-1]) if config.get("shift_terminal") else times
