"""Writes the lab's pages, docs/lab/*.md, from what the experiments found there: ``python docs/make_lab.py``.

``guidon lab run all --data cifar10 -o docs/lab`` makes the findings (NAME.json) and the pictures, with CIFAR-10's Parquet files in the
folder cifar10; the pages repeat their numbers and no others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guidon.guidance.citations import lookup
from guidon.lab.experiment import Experiment
from guidon.lab.experiments import experiments

LAB = Path(__file__).parent / "lab"
MARK = "<!-- written by docs/make_lab.py; do not edit -->\n"
LONGEST = 60  # rows of a table on a page; the JSON has them all
OPENING = """# The lab

In a mixture of Gaussians everything that a perfect network would answer is a formula, at every noise level: beliefs, scores, the
class of a noisy point. So what guidance does can be told from what a network gets wrong, and a solver or a rule can be compared with
the truth. What an experiment measures goes through guidon's own solvers, rules and engine; what it is compared with is a formula, a
quadrature or an adaptive integrator.

```
guidon lab list                    # what can be asked
guidon lab run two-modes -o lab    # a picture and a table
guidon lab run all -o lab          # all of it, in a few minutes
```

A world of your own, sampled through the engine and compared with the adaptive integrator:

```python
import torch
from guidon.guidance import CFG
from guidon.lab import Exact, Mixture, told
from guidon.lab.integrate import integrate
from guidon.noise import EDM
from guidon.noise.grids import Karras
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.solvers import Heun

means, variances = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.3, 0.1], [0.1, 0.3]])
networks = {"main": Exact(Mixture(torch.ones(2), means, variances, component_class=torch.tensor([0, 1])))}
levels, labels = Karras(sigma_min=0.02, sigma_max=20.0).levels(EDM(), 20), told([1] * 64)
noise = PerImageNoise(range(64), (2,), dtype=torch.float64)  # RecordingNoise(noise) keeps it
start = noise() * levels[0].sigma
samples = Engine(networks).run([Trajectory(start, levels, Heun(), CFG(3.0), labels, noise)])[0]
exact = integrate(networks, CFG(3.0), levels, start, labels)[-1]
print((samples - exact).norm(dim=1).median())
```

"""


def pages() -> dict[str, str]:
    """Return the text of every page by its file's name."""
    found = {name: (member, _account(name)) for name, member in experiments() if (LAB / f"{name}.json").is_file()}
    cards = [
        f"## [{member.title}]({name}.md)\n\n{member.asks}\n\n[![{member.title}]({account['pictures'][0]})]({name}.md)\n"
        for name, (member, account) in found.items()
    ]
    texts = {f"{name}.md": _page(name, member, account) for name, (member, account) in found.items()}
    return {"index.md": MARK + OPENING + "\n".join(cards), **texts}


def _account(name: str) -> dict[str, Any]:
    return json.loads((LAB / f"{name}.json").read_text(encoding="utf-8"))


def _page(name: str, member: type[Experiment], account: dict[str, Any]) -> str:
    blocks = [f"# {member.title}", f"*{member.asks}*", member.text()]
    blocks += [f"![{member.title}]({picture})" for picture in account["pictures"]]
    blocks += ["## Found", "\n".join(f"- {sentence}" for sentence in account["sees"])]
    for title, rows in account["tables"].items():
        blocks += [f"## {title.capitalize().replace('_', ' ')}", _table(rows)]
    blocks.append(
        f"`{account['command']}` took {account['seconds']:g} s ({account['machine']}); all numbers: [{name}.json]({name}.json)."
    )
    if hasattr(member, "data"):
        blocks.append(
            "`--data` names the images: here a folder with the Parquet files of CIFAR-10 (`uoft-cs/cifar10` at the hub). "
            "Without it they are the handwritten digits that come along."
        )
    if member.sources:
        blocks.append("\n".join(["**Papers:**", "", *(f"- {_paper(key)}" for key in member.sources)]))
    return MARK + "\n\n".join(blocks) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(key for row in rows for key in row))
    heads = [name.replace("_", " ") for name in names]
    rules = ["---:" if _numeric([row.get(name) for row in rows]) else "---" for name in names]
    lines = [heads, rules, *([_cell(row.get(name)) for name in names] for row in rows[:LONGEST])]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text if len(rows) <= LONGEST else f"{text}\n\n{len(rows) - LONGEST} more rows are in the JSON."


def _numeric(values: list[Any]) -> bool:
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def _cell(value: Any) -> str:
    """Return a value as a table shows it, numbers to four digits."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "&#124;").replace("<", "&lt;").replace("*", "\\*")


def _paper(key: str) -> str:
    (entry,) = lookup([key])
    title = f"[{entry.title}]({entry.link})" if entry.link else entry.title
    return f"{title}, {entry.fields['year']} (`{key}`)"


if __name__ == "__main__":
    for file, text in pages().items():
        (LAB / file).write_text(text, encoding="utf-8")
