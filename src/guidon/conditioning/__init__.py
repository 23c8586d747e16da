"""What the model is told: raw conditions, and the context they become inside the network."""

from __future__ import annotations

from guidon.conditioning.condition import Condition, Context, Projected
from guidon.conditioning.labels import LabelEncoder, Labels
from guidon.conditioning.text import Texts

__all__ = ["Condition", "Context", "LabelEncoder", "Labels", "Projected", "Texts"]
