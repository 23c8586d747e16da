"""How predictions combine: rules, stages, weights."""

from guidon.guidance.cfg import CFG
from guidon.guidance.chain import Chain
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Rule
from guidon.guidance.weights import CosineWeight, Interval, LinearWeight, Weight, from_ho_salimans

__all__ = [
    "CFG",
    "GIVEN",
    "NULL",
    "About",
    "Branch",
    "Chain",
    "CosineWeight",
    "Guided",
    "Interval",
    "LinearWeight",
    "Moment",
    "Rule",
    "Weight",
    "from_ho_salimans",
]
