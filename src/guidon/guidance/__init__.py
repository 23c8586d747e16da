"""How predictions combine: rules, stages, weights."""

from guidon.guidance.cfg import CFG
from guidon.guidance.chain import Chain
from guidon.guidance.conditions import Avoid, Conjunction, Negative, PerpNeg, TwoScale
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Rule
from guidon.guidance.weak import ICG, PAG, SEG, SLG, TSG, Autoguidance, Internal
from guidon.guidance.weights import CosineWeight, Interval, LinearWeight, Weight, from_ho_salimans

__all__ = [
    "CFG",
    "GIVEN",
    "ICG",
    "NULL",
    "PAG",
    "SEG",
    "SLG",
    "TSG",
    "About",
    "Autoguidance",
    "Avoid",
    "Branch",
    "Chain",
    "Conjunction",
    "CosineWeight",
    "Guided",
    "Internal",
    "Interval",
    "LinearWeight",
    "Moment",
    "Negative",
    "PerpNeg",
    "Rule",
    "TwoScale",
    "Weight",
    "from_ho_salimans",
]
