"""What there is: coloured things of four shapes and two sizes on white, none touching another."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 200, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 220, 0),
    "purple": (190, 0, 200),
    "black": (0, 0, 0),
}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": 8 / 32, "big": 13 / 32}  # across, in sides of the image
PLACES = ("top left", "top right", "bottom left", "bottom right", "center")
RELATIONS = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}  # where the other one lies
MIDDLE = 0.12  # the center reaches so far from the middle of the image; what is farther in x and in y is in a corner
APART = 0.1  # a relation holds from this difference of the centres on


@dataclass(frozen=True)
class Thing:
    """One thing in a scene.

    Args:
        colour: one of `COLOURS`; None where it was read and is like none of them.
        shape: one of `SHAPES`; None where it was read and is like none of them.
        size: one of `SIZES`.
        x, y: the middle of its bounding box in [0, 1], from the left and from the top.
    """

    colour: str | None
    shape: str | None
    size: str
    x: float
    y: float

    @property
    def place(self) -> str | None:
        """One of `PLACES`; None between two of them."""
        right, below = self.x - 0.5, self.y - 0.5
        if max(abs(right), abs(below)) <= MIDDLE:
            return "center"
        if min(abs(right), abs(below)) < MIDDLE:
            return None
        return ("top " if below < 0 else "bottom ") + ("left" if right < 0 else "right")

    def stands(self, relation: str, other: Thing, by: float = APART) -> bool:
        """Whether it is left of (right of, above, below) another by a difference of the centres."""
        x, y = RELATIONS[relation]
        return x * (other.x - self.x) + y * (other.y - self.y) >= by


@dataclass(frozen=True)
class Scene:
    """Things on white."""

    things: tuple[Thing, ...]
