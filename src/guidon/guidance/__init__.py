"""How predictions combine: rules, weights."""

from guidon.guidance.cfg import CFG
from guidon.guidance.rule import GIVEN, NULL, Branch, Guided, Moment, Rule
from guidon.guidance.weights import CosineWeight, Interval, LinearWeight, Weight, from_ho_salimans

__all__ = [
    "CFG",
    "GIVEN",
    "NULL",
    "Branch",
    "CosineWeight",
    "Guided",
    "Interval",
    "LinearWeight",
    "Moment",
    "Rule",
    "Weight",
    "from_ho_salimans",
]
