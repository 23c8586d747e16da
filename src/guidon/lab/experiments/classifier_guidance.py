"""Guidance by a classifier: the same as classifier-free guidance if the classifier is exact, and by learned ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import Rule
from guidon.guidance.cfg import CFG
from guidon.guidance.energy import ClassifierGuidance
from guidon.lab.classifier import Judges, fit
from guidon.lab.distance import apart, chance, exact_draws
from guidon.lab.drawing import TRUTH, color, outline, panels, plain, shade
from guidon.lab.experiment import Experiment, Findings, Row, Track, quietly
from guidon.lab.guided import guided
from guidon.lab.mixture import NULL_LABEL, Exact, ExactClassifier, Mixture, told
from guidon.lab.plane import CLASSES, mixture
from guidon.lab.sampled import sample
from guidon.noise import Cosine, Level
from guidon.noise.noise_grids import LogSNR
from guidon.registry import register
from guidon.solvers import DDIM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROCESS, CLASS = Cosine(), 0
LEVELS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, 5.0, 10.0, 20.0)
EXTENT = (-2.4, 3.4, -2.0, 3.6)


@register("experiment", "classifier-guidance")
@dataclass(frozen=True)
class ClassifierGuidanceLearned(Experiment):
    """Classifier guidance by the exact classifier, which is classifier-free guidance, and by three learned ones.

    By Bayes' rule the gradient of log p(y | x_t) is the difference of the scores with and without the class, exactly, at every noise
    level. So guidance by the *exact* classifier of noisy points, over the unconditional belief, is classifier-free guidance with the
    same weight. Here that is checked at single evaluations and at the end of whole runs, in double precision.

    A classifier that was learned is another matter. Three classes of a mixture in the plane are told apart by three small networks,
    trained during the run: one on noisy points, told the noise level, as Dhariwal & Nichol demand; one on clean points only; and one on
    noisy points, but of so few clean ones that it knows them by heart. The unconditional belief stays exact, so everything that
    goes wrong is the classifier's doing. Its gradient is compared with the exact one on points noised as in training: the cosine
    says whether it points the right way, the ratio of lengths whether it pulls as hard as it should.

    The samples are judged by the exact posterior of their class, and by the classifier that guided them: where the second is far
    above the first, guidance has found points that please the classifier and that the truth calls another class. Even the exact
    posterior only compares classes with each other: far outside of all of them it is still near 1 for the widest in that
    direction. So read it beside the distance, the sliced Wasserstein distance to exact draws of the class, which other exact
    draws have too, by chance. The shares are those of the samples nearest to each mode.

    For a user: cross-entropy trains what a classifier says, never its gradient, which is whatever a network that gets the labels
    right happens to have. So judge a classifier for guidance by what it does to samples, not by its confidence in them.

    Args:
        weights: of guidance, each >= 0.
        count: samples for each weight and classifier, >= 2.
        steps: of DDIM.
        training: steps of training, >= 2; that on clean points takes half.
        few: clean points that the third classifier ever sees, at least one of each of the three classes.
        seed: of the training.

    Raises:
        BadValue: nothing to sample, or too little to train with.
    """

    page: ClassVar[int] = 10
    title: ClassVar[str] = "Guidance by classifiers"
    asks: ClassVar[str] = "What does a learned classifier do to guidance that an exact one, or none, would not?"
    sources: ClassVar[tuple[str, ...]] = ("dhariwal2021diffusion", "ho2022classifier")

    weights: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 7.0, 10.0)
    count: int = 500
    steps: int = 50
    training: int = 1200
    few: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights) < 0 or self.count < 2:
            raise BadValue(
                f"classifier-guidance needs weights >= 0 and two samples or more, got {self.weights} and {self.count}"
            )
        if self.training < 2 or self.few < CLASSES:
            raise BadValue(
                f"classifier-guidance trains for two steps or more, on {CLASSES} points or more; got {self.training} and {self.few}"
            )

    def run(self, track: Track[Any] = quietly) -> Findings:
        truth = mixture()
        classifiers = self.classifiers(truth)
        levels = LogSNR(sigma_min=0.01, sigma_max=80.0).levels(PROCESS, self.steps)
        labels, seeds = [CLASS] * self.count, range(self.count)
        draws = exact_draws(partial(truth.sample, self.count, CLASS), self.seed + 1)
        rows: list[Row] = []
        identity: list[Row] = []
        clouds: dict[tuple[str, float], Tensor] = {}
        for weight in track(self.weights, "weights"):
            free = sample(truth, CFG(weight), DDIM(), levels, labels, seeds)
            for name, classifier in classifiers.items():
                rule: Rule = ClassifierGuidance(weight)
                networks: Any = {"classifier": classifier}
                clouds[name, weight] = x = sample(truth, rule, DDIM(), levels, labels, seeds, networks)
                rows.append({"classifier": name, "weight": weight} | judged(truth, classifier, x, draws))
            identity.append(
                {
                    "weight": weight,
                    "largest difference of eps in one evaluation": one_evaluation(truth, weight, self.seed),
                    "largest difference at the end of a run": float((clouds["exact", weight] - free).abs().max()),
                }
            )
        floor = chance(draws)
        gradients = [row for name in classifiers for row in compared(truth, name, classifiers[name], self.seed)]
        tables = {"samples": rows, "gradients": gradients, "identity": identity}
        figures = {"": _clouds(truth, clouds), "gradients": _gradients(gradients), "weights": _weights(rows, floor[0])}
        return Findings(_sees(rows, gradients, identity, floor), tables, figures)

    def classifiers(self, truth: Mixture) -> dict[str, Judges]:
        """Return the exact classifier and the three learned ones, by name."""
        return {
            "exact": ExactClassifier(truth),
            "noisy": fit(truth, PROCESS, steps=self.training, seed=self.seed),
            "clean only": fit(truth, PROCESS, steps=self.training // 2, seed=self.seed, noisy=False),
            "few points": fit(truth, PROCESS, steps=self.training, seed=self.seed, points=self.few),
        }


def judged(truth: Mixture, classifier: Judges, x: Tensor, draws: Sequence[Tensor]) -> dict[str, float]:
    """Return what the exact posterior and a classifier say of clean points (B, 2), and how far they are from draws of the class."""
    given, clean = told(torch.full((len(x),), CLASS))["given"], PROCESS.clean
    exact = ExactClassifier(truth).log_prob(x, clean, given).exp()
    own = classifier.log_prob(x, clean, given).exp()
    nearest = torch.cdist(x, truth.means[truth.component_class == CLASS]).argmin(1)
    modes = torch.bincount(nearest, minlength=int((truth.component_class == CLASS).sum())) / len(x)
    return {
        "called the class": round(float((exact > 0.5).double().mean()), 4),
        "exact posterior": round(float(exact.mean()), 4),
        "own confidence": round(float(own.mean()), 4),
        "distance": round(apart(x, draws), 4),
        **{f"nearest mode {i + 1}": round(float(part), 4) for i, part in enumerate(modes)},
    }


def gradient(classifier: Judges, x: Tensor, level: Level) -> Tensor:
    """Return the gradient of a classifier's log p(class | x_t) at states (B, 2)."""
    x = x.clone().requires_grad_()
    log_p = classifier.log_prob(x, level, told(torch.full((len(x),), CLASS))["given"])
    return torch.autograd.grad(log_p.sum(), x)[0]


def noised(truth: Mixture, level: Level, seed: int, count: int = 2000) -> Tensor:
    """Return points of all classes (count, 2), noised to a level."""
    generator = torch.Generator().manual_seed(seed)
    clean = truth.sample(count, NULL_LABEL, generator)
    return level.alpha * clean + level.sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)


def compared(truth: Mixture, name: str, classifier: Judges, seed: int) -> list[Row]:
    """Return how the gradient of a classifier compares with the exact one at each noise level."""
    rows: list[Row] = []
    for noise_level in LEVELS:
        level = PROCESS.level_at(noise_level)
        x = noised(truth, level, seed + 3)
        exact, own = gradient(ExactClassifier(truth), x, level), gradient(classifier, x, level)
        cosine = torch.cosine_similarity(own, exact, dim=1).median()
        rows.append(
            {
                "classifier": name,
                "noise level": noise_level,
                "cosine, median": round(float(cosine), 4),
                "length over exact, median": round(float((own.norm(dim=1) / exact.norm(dim=1)).median()), 4),
                "error, root mean square over exact": round(float((own - exact).norm() / exact.norm()), 4),
            }
        )
    return rows


def one_evaluation(truth: Mixture, weight: float, seed: int) -> float:
    """Return the largest difference of the noise of cfg and of guidance by the exact classifier, over all noise levels."""
    networks: Any = {"main": Exact(truth), "classifier": ExactClassifier(truth)}
    found = 0.0
    for noise_level in LEVELS:
        level = PROCESS.level_at(noise_level)
        x = noised(truth, level, seed + 4, 200)
        contexts = told(torch.full((len(x),), CLASS))
        free, classified = (
            guided(networks, rule, x, level, contexts).eps for rule in (CFG(weight), ClassifierGuidance(weight))
        )
        found = max(found, float((free - classified).abs().max()))
    return found


def _sees(
    rows: Sequence[Row], gradients: Sequence[Row], identity: Sequence[Row], floor: tuple[float, float]
) -> list[str]:
    single = max(row["largest difference of eps in one evaluation"] for row in identity)
    ends = max(row["largest difference at the end of a run"] for row in identity)
    strong = max(row["weight"] for row in rows)
    last = {row["classifier"]: row for row in rows if row["weight"] == strong}
    best = {
        name: min((row for row in rows if row["classifier"] == name), key=lambda row: row["distance"]) for name in last
    }
    high = {row["classifier"]: row for row in gradients if row["noise level"] == 3.0}
    gap = {name: row["own confidence"] - row["exact posterior"] for name, row in last.items()}
    widest = max(gap, key=lambda name: gap[name])
    return [
        f"Guidance by the exact classifier and classifier-free guidance differ by at most {single:.0e} in one evaluation and "
        f"{ends:.0e} at the end of a run.",
        "Closest to the class comes "
        + "; ".join(f"{name}: {row['distance']:.3f} at weight {row['weight']:g}" for name, row in best.items())
        + f" (two draws from the class are {floor[0]:.3f} apart on average, {floor[1]:.3f} at most, of ten pairs).",
        "At noise level 3 the gradient has, against the exact one, "
        + "; ".join(
            f"{name}: cosine {row['cosine, median']:.2f}, {row['length over exact, median']:.2g} times the length"
            for name, row in high.items()
            if name != "exact"
        )
        + ".",
        f"At weight {strong:g} the exact posterior calls them the class, and they are as far from it: "
        + "; ".join(
            f"{name}: {row['called the class']:.1%} of the samples, distance {row['distance']:.3f}"
            for name, row in last.items()
        )
        + ".",
        f"There the classifier that overrates its own samples most is '{widest}': it gives them "
        f"{last[widest]['own confidence']:.3f} on average, the exact posterior {last[widest]['exact posterior']:.3f}.",
    ]


def _log_density(truth: Mixture, label: int, x: Tensor) -> Tensor:
    return truth.log_density(x, 1.0, 0.0, torch.full((len(x),), label))


def _clouds(truth: Mixture, clouds: Mapping[tuple[str, float], Tensor]) -> Figure:
    """Draw samples of each classifier at three weights."""
    names = list(dict.fromkeys(name for name, _ in clouds))
    weights = sorted({weight for _, weight in clouds})
    weights = [w for i, w in enumerate(weights) if i in {len(weights) // 6, len(weights) // 2, len(weights) - 1}]
    figure, axes = panels(len(weights), len(names), width=9.2 / len(names), height=2.3)
    for r, weight in enumerate(weights):
        for c, name in enumerate(names):
            panel = axes[r, c]
            shade(panel, partial(_log_density, truth, CLASS), EXTENT)
            for other in range(1, truth.classes):
                outline(panel, partial(_log_density, truth, other), EXTENT, linestyles="dotted")
            x = clouds[name, weight]
            panel.scatter(x[:, 0], x[:, 1], s=3, color=color(names.index(name)), linewidth=0, alpha=0.7)
            low, high = torch.tensor(EXTENT[::2]), torch.tensor(EXTENT[1::2])
            out = float(((x < low) | (x > high)).any(1).double().mean())
            panel.set_title(f"{name}, weight {weight:g}" + (f" ({out:.0%} outside)" if out else ""), fontsize=8)
    return figure


def _gradients(rows: Sequence[Row]) -> Figure:
    """Draw how the learned gradients compare with the exact one."""
    figure, axes = panels(1, 3, width=3.1, height=2.8)
    for panel, key, title in zip(
        axes[0],
        ("cosine, median", "length over exact, median", "error, root mean square over exact"),
        ("cosine with the exact gradient", "length over that of the exact one", "error over the exact one's length"),
        strict=True,
    ):
        for place, name in enumerate(dict.fromkeys(row["classifier"] for row in rows)):
            mine = [row for row in rows if row["classifier"] == name]
            if name == "exact":
                if mine[0][key] > 0:  # it has no error
                    panel.axhline(mine[0][key], color=TRUTH, linewidth=0.8, linestyle="--", label=name)
                continue
            xs, ys = [row["noise level"] for row in mine], [row[key] for row in mine]
            panel.plot(xs, ys, color=color(place), marker="o", markersize=3, linewidth=1.2, label=name)
        panel.set_xscale("log")
        if key != "cosine, median":
            panel.set_yscale("log")
        plain(panel, title, "noise level", legend=panel is axes[0, 0])
    return figure


def _weights(rows: Sequence[Row], floor: float) -> Figure:
    """Draw what comes out against the weight."""
    figure, axes = panels(1, 3, width=3.1, height=2.8)
    first, second, third = axes[0]
    for place, name in enumerate(dict.fromkeys(row["classifier"] for row in rows)):
        mine = [row for row in rows if row["classifier"] == name]
        weights = [row["weight"] for row in mine]
        style: dict[str, Any] = {"color": color(place), "marker": "o", "markersize": 3, "linewidth": 1.2}
        first.plot(weights, [row["exact posterior"] for row in mine], label=name, **style)
        second.plot(weights, [row["own confidence"] - row["exact posterior"] for row in mine], **style)
        third.plot(weights, [row["distance"] for row in mine], **style)
    second.axhline(0, color=TRUTH, linewidth=0.8, linestyle="--")
    third.axhline(floor, color=TRUTH, linewidth=0.8, linestyle="--", label="two draws from the class, mean")
    third.set_yscale("log")
    plain(first, "exact posterior of the class, mean", "weight", legend=True)
    plain(second, "the classifier's own confidence,\nless the exact posterior", "weight")
    plain(third, "distance to the class", "weight", legend=True)
    return figure
