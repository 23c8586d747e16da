"""How to move from one level to the next."""

from guidon.solvers.adams import DEIS, LMS
from guidon.solvers.ancestral import DDIM, DDPM, EulerAncestral
from guidon.solvers.churn import Churn
from guidon.solvers.corrector import PCG
from guidon.solvers.dpm2 import DPM2, DPM2Ancestral
from guidon.solvers.dpmpp import DPMpp2M, DPMpp3M, DPMSolver2M
from guidon.solvers.dpmpp_ancestral import DPMpp2SAncestral
from guidon.solvers.dpmpp_sde import DPMpp2MSDE, DPMpp3MSDE, DPMppSDE
from guidon.solvers.euler import Euler, Heun
from guidon.solvers.langevin import Langevin
from guidon.solvers.plms import PLMS
from guidon.solvers.rectified import Rectified
from guidon.solvers.singlestep import DPMFast, DPMppSinglestep
from guidon.solvers.solver import Ask, Solver
from guidon.solvers.unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "DPM2",
    "LMS",
    "PCG",
    "PLMS",
    "Ask",
    "Churn",
    "DPM2Ancestral",
    "DPMFast",
    "DPMSolver2M",
    "DPMpp2M",
    "DPMpp2MSDE",
    "DPMpp2SAncestral",
    "DPMpp3M",
    "DPMpp3MSDE",
    "DPMppSDE",
    "DPMppSinglestep",
    "Euler",
    "EulerAncestral",
    "Heun",
    "Langevin",
    "Rectified",
    "Solver",
    "UniPC",
]
