"""The page of the demo: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def report_page(facts: Mapping[str, Any], picture: bytes) -> str:
    """Return the page.

    Args:
        facts: what ``report.json`` holds.
        picture: the content of ``guidance.png``.
    """
    rows, training, model = facts["rows"], facts["training"], facts["model"]
    count = rows[0]["n"]
    best = min(rows, key=lambda row: row["frechet"])
    image = base64.b64encode(picture).decode()
    return _PAGE.format(
        picture=image,
        table=_table(rows),
        chart=_chart(rows),
        summary=escape(_summary(rows, best)),
        count=count,
        per_class=facts["per_class"],
        real=facts["real_images"],
        held_out=f"{facts['judge_held_out_accuracy']:.1%}",
        facts=_list(
            {
                "Model": f"{training['parameters']:,} parameters, process {model['process']}, output {model['output']}",
                "Training": f"{training['images']:,} images in {training['seconds']:.0f} s "
                f"({training['images_per_second']:,.0f} images/s), loss {training['loss']:.4f}",
                "Sampling": f"{model['solver']}, {model['steps']} steps on {model['grid']}, seeds from {facts['seed']} on",
                "Machine": facts["machine"],
                "Versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
                "This run": f"{facts['seconds']:.0f} s in all",
            }
        ),
    )


def _summary(rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> str:
    by_weight = {row["weight"]: row for row in rows}
    free, plain, strong = by_weight[0.0], by_weight[1.0], rows[-1]
    return (
        f"Told nothing (w = 0), the model draws all {sum(n > 0 for n in free['classes_seen'])} digits as it likes. "
        f"Told the digit (w = 1), {plain['accuracy']:.1%} come out right. "
        f"At w = 3, {by_weight[3.0]['accuracy']:.1%} do. The price is variety: the share of real digits that look like "
        f"some sample falls from {plain['recall']:.0%} at w = 1 to {strong['recall']:.0%} at w = {strong['weight']:g}. "
        f"The distribution is nearest to the real one at w = {best['weight']:g}."
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "w",
        "right digit",
        "Fréchet distance",
        "precision",
        "recall",
        "evaluations an image",
        "seconds",
        "ms an image",
    )
    body = (
        (
            f"{row['weight']:g}",
            f"{row['accuracy']:.1%}",
            f"{row['frechet']:.2f}",
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f}",
            str(row["nfe"]),
            f"{row['seconds']:.1f}",
            f"{1000 * row['seconds_per_image']:.1f}",
        )
        for row in rows
    )
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in body)
    return (
        f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr></thead><tbody>{cells}</tbody></table>"
    )


def _chart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return accuracy, precision and recall over the weights as SVG; the weights are evenly spaced."""
    from matplotlib.figure import Figure  # half a second to import

    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for name in ("accuracy", "precision", "recall"):
        axes.plot([f"w = {row['weight']:g}" for row in rows], [row[name] for row in rows], marker="o", label=name)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]  # without the XML prologue, which HTML does not want


def _list(facts: Mapping[str, str]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What guidance does</title>
<style>
:root {{ color-scheme: light dark; --ink: light-dark(#18181b, #e4e4e7); --faint: light-dark(#71717a, #a1a1aa);
  --line: light-dark(#e4e4e7, #3f3f46); }}
body {{ font: 16px/1.55 system-ui, sans-serif; color: var(--ink); max-width: 72rem; margin: 2.5rem auto; padding: 0 1.25rem; }}
h1 {{ font-size: 1.7rem; margin: 0 0 .4rem; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .6rem; }}
p {{ max-width: 46rem; }} img {{ width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 8px; }}
.wide {{ overflow-x: auto; }} svg {{ width: 100%; max-width: 640px; height: auto; border-radius: 8px; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .9rem; text-align: right; border-bottom: 1px solid var(--line); }}
th {{ font-weight: 600; font-size: .85rem; color: var(--faint); vertical-align: bottom; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }} dt {{ color: var(--faint); }} dd {{ margin: 0; }}
</style>
</head>
<body>
<h1>What guidance does</h1>
<p>{summary}</p>
<img alt="Rows are guidance weights, columns are digits, nine samples in each cell" src="data:image/png;base64,{picture}">
<h2>Measured</h2>
<div class="wide">{table}</div>
{chart}
<p>{count} images at each weight, {per_class} of each digit, the same seeds at every weight. The judge is a classifier trained on the
{real} real images alone; trained on four fifths of them it recognises {held_out} of the rest. Fréchet distance, precision and recall
(k = 3) are taken in its features against all real images: they compare the rows of this table, not pages with other data.
Evaluations count the network's forward passes for one image: at w = 0 and w = 1 one branch a step is asked, else two.</p>
<h2>How it was made</h2>
<dl>{facts}</dl>
</body>
</html>
"""
