"""Every family of tiny pipelines."""

from __future__ import annotations

from support.tiny_further import FURTHER
from support.tiny_others import OTHERS
from support.tiny_pipelines import FAMILIES, Family

EVERY: dict[str, Family] = {**FAMILIES, **FURTHER, **OTHERS}
