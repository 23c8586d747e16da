"""``guidon demo``: the main job from end to end on real images, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

EXAMPLES = """Examples:

  guidon demo                 train, sample, measure; see demo/report.html
  guidon demo -o /tmp/demo    somewhere else"""


def demo(*, out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("demo")) -> None:
    """Train on handwritten digits, sample under guidance, measure, and show what guidance does.

    Takes under four minutes on two cores. Writes report.html, guidance.png and
    report.json. Training that is finished is not repeated a second time, training
    that was interrupted goes on.

    Args:
        out: folder to write into.
    """
    from guidon.app.progress import loading

    with loading("torch"):
        from guidon.app.demo import run_demo

    run_demo(out)
