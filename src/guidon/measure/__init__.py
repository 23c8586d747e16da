"""Measuring what guidance did: a judge of its own, distances between sets of images, precision and recall."""
