"""How to move from one level to the next."""

from guidon.solvers.ancestral import DDIM, DDPM, EulerAncestral
from guidon.solvers.churn import Churn
from guidon.solvers.corrector import PCG
from guidon.solvers.dpmpp import DPMpp2M
from guidon.solvers.dpmpp_ancestral import DPMpp2SAncestral
from guidon.solvers.euler import Euler, Heun
from guidon.solvers.langevin import Langevin
from guidon.solvers.rectified import Rectified
from guidon.solvers.solver import Ask, Solver

__all__ = [
    "DDIM",
    "DDPM",
    "PCG",
    "Ask",
    "Churn",
    "DPMpp2M",
    "DPMpp2SAncestral",
    "Euler",
    "EulerAncestral",
    "Heun",
    "Langevin",
    "Rectified",
    "Solver",
]
