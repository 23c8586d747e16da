"""How predictions combine: rules, stages, weights."""

from guidon.guidance.adaptive import Adaptive
from guidon.guidance.apg import APG
from guidon.guidance.cads import CADS
from guidon.guidance.cfg import CFG
from guidon.guidance.cfg_zero import CFGZero
from guidon.guidance.chain import Chain
from guidon.guidance.channels import Channels
from guidon.guidance.conditions import Avoid, Conjunction, Negative, TwoScale
from guidon.guidance.dynamic_scale import DynamicScale
from guidon.guidance.energy import ClassifierGuidance
from guidon.guidance.fdg import FDG
from guidon.guidance.feedback import FBG
from guidon.guidance.linear_ag import LinearAG
from guidon.guidance.magnitude import MamboG, PowerLaw
from guidon.guidance.perp_neg import PerpNeg
from guidon.guidance.renoise import CFGpp, RectifiedCFGpp
from guidon.guidance.rescale import Rescale
from guidon.guidance.reuse import Reuse
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Rule
from guidon.guidance.tcfg import TCFG
from guidon.guidance.threshold import DynamicThreshold, Threshold
from guidon.guidance.weak import ICG, PAG, SEG, SLG, TSG, Autoguidance, Internal
from guidon.guidance.weights import (
    BetaWeight,
    ClampLinearWeight,
    CosineWeight,
    Interval,
    LinearWeight,
    OfMoment,
    PowerWeight,
    Weight,
    from_ho_salimans,
)

__all__ = [
    "APG",
    "CADS",
    "CFG",
    "FBG",
    "FDG",
    "GIVEN",
    "ICG",
    "NULL",
    "PAG",
    "SEG",
    "SLG",
    "TCFG",
    "TSG",
    "About",
    "Adaptive",
    "Autoguidance",
    "Avoid",
    "BetaWeight",
    "Branch",
    "CFGZero",
    "CFGpp",
    "Chain",
    "Channels",
    "ClampLinearWeight",
    "ClassifierGuidance",
    "Conjunction",
    "CosineWeight",
    "DynamicScale",
    "DynamicThreshold",
    "Guided",
    "Internal",
    "Interval",
    "LinearAG",
    "LinearWeight",
    "MamboG",
    "Moment",
    "Negative",
    "OfMoment",
    "PerpNeg",
    "PowerLaw",
    "PowerWeight",
    "RectifiedCFGpp",
    "Rescale",
    "Reuse",
    "Rule",
    "Threshold",
    "TwoScale",
    "Weight",
    "from_ho_salimans",
]
