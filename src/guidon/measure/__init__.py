"""Measuring what guidance did: a judge of its own, distances between sets of images, precision and recall."""

from guidon.measure import metrics, networks

__all__ = ["metrics", "networks"]  # imported with the package, so that all that can be measured has its name
