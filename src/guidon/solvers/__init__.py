"""How to move from one level to the next."""

from guidon.solvers.ancestral import DDIM, DDPM
from guidon.solvers.dpmpp import DPMpp2M
from guidon.solvers.euler import Euler, Heun
from guidon.solvers.solver import Ask, Solver

__all__ = ["DDIM", "DDPM", "Ask", "DPMpp2M", "Euler", "Heun", "Solver"]
