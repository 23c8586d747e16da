"""What the model is told: raw conditions, and the context they become inside the network."""

from __future__ import annotations

from guidon.conditioning.condition import Condition, Context
from guidon.conditioning.labels import LabelEncoder, Labels

__all__ = ["Condition", "Context", "LabelEncoder", "Labels"]
