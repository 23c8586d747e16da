"""The engine: the only one that touches networks.

It collects the queries of all live trajectories, groups those that one forward can answer, runs each group, and hands the
answers back. The branches of a guided step, the requests of several users and the steps of different solvers thereby
share forwards; a branch that a rule does not want costs nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.errors import BadValue, NotSupported
from guidon.guidance.rule import Branch
from guidon.noise.level import Level
from guidon.noise.prediction import Prediction
from guidon.perturbation import Perturbation
from guidon.sampling.trajectory import Query, Trajectory

Perturbed = tuple[tuple[Perturbation, slice], ...]


class Denoises(Protocol):
    """What the engine needs of a network: (x, level, context) -> `Prediction`.

    A network that can be weakened takes ``perturbed``, the rows to weaken and how, as a fourth argument, and has a method
    ``check(perturbation)`` that raises `NotSupported` for what it does not offer; one with an inner head says ``has_inner``.
    A classifier has, instead of all this, ``log_prob(x, level, context)``, the differentiable log p(condition | x) (B,).
    """

    def __call__(self, x: Tensor, level: Level, context: Context) -> Prediction:
        """Return what is believed at ``x`` (B, ...); level fields are floats, or tensors (B,)."""
        ...


PRECISIONS = ("fp32", "bf16")


class Engine:
    """Answers the questions of many trajectories in as few forwards as possible.

    Args:
        networks: the networks that branches name, for instance {"main": denoiser}.
        batching: "joint" puts all that fits into one forward; "sequential" runs every query on its own (less memory).
        max_batch: rows of one forward at most; larger groups run in chunks.
        precision: "fp32", or "bf16": matrix products and convolutions of the networks in half precision, all else as it is.

    Attributes:
        live: the trajectories that are under way. Add with `join`, take out with `leave`, at any round.
        forwards: forwards run.
        rows: rows (images times branches) they held: the network evaluations of all images.
    """

    def __init__(
        self,
        networks: Mapping[str, Denoises],
        *,
        batching: str = "joint",
        max_batch: int | None = None,
        precision: str = "fp32",
    ) -> None:
        if batching not in ("joint", "sequential"):
            raise BadValue(f"batching is joint or sequential, got {batching!r}")
        if max_batch is not None and max_batch < 1:
            raise BadValue(f"max_batch is at least 1, got {max_batch}")
        if precision not in PRECISIONS:
            raise BadValue(f"precision is fp32 or bf16, got {precision!r}")
        self.networks, self.batching, self.max_batch, self.precision = networks, batching, max_batch, precision
        self.live: list[Trajectory] = []
        self._joined: dict[tuple[Context, ...], Context] = {}
        self.forwards = self.rows = 0

    def join(self, trajectory: Trajectory) -> None:
        """Let a trajectory take part from the next round on; one that is done, or there already, changes nothing.

        Raises:
            BadValue: an error ended the trajectory.
            NotSupported: its rule wants a network that there is none of, or something of it that it does not offer.
        """
        if trajectory.failed:
            raise BadValue("an error ended this trajectory; start a new one")
        for branch in trajectory.wanted:
            self._check(branch)
        if not trajectory.done and trajectory not in self.live:
            self.live.append(trajectory)

    def leave(self, trajectory: Trajectory) -> None:
        """Take a trajectory out, finished or not; the others go on undisturbed. It may join again later."""
        if trajectory in self.live:
            self.live.remove(trajectory)
            self._joined.clear()

    @torch.no_grad()
    def round(self) -> None:
        """Answer one question of every live trajectory; those that finish leave.

        Where one fails, it leaves too, the others are told their answers, and then its error is raised: whoever catches it can
        go on with the others.
        """
        asked = [(trajectory, query) for trajectory in self.live for query in trajectory.queries]
        answers = self._answer([query for _, query in asked])
        told: dict[int, list[Prediction | Exception]] = {id(trajectory): [] for trajectory in self.live}
        for (trajectory, _), answer in zip(asked, answers, strict=True):
            told[id(trajectory)].append(answer)
        failures: list[Exception] = []
        for trajectory in list(self.live):
            try:
                trajectory.tell(told[id(trajectory)])
            except Exception as error:
                failures.append(error)
            if not trajectory.queries:
                self.leave(trajectory)
        if failures:
            raise failures[0]

    def run(self, trajectories: Iterable[Trajectory]) -> list[Tensor]:
        """Take trajectories to their end together and return their images."""
        everyone = list(trajectories)
        for trajectory in everyone:  # all or none
            for branch in trajectory.wanted:
                self._check(branch)
        for trajectory in everyone:
            self.join(trajectory)
        while any(trajectory in self.live for trajectory in everyone):
            self.round()
        return [trajectory.x for trajectory in everyone]

    def _answer(self, queries: Sequence[Query]) -> list[Prediction | Exception]:
        """Return an answer for each query; where a network fails, its error for every query of that forward."""
        groups: dict[Hashable, list[int]] = {}
        for i, query in enumerate(queries):
            groups.setdefault(i if self.batching == "sequential" else _group(query), []).append(i)
        answers: list[Prediction | Exception | None] = [None] * len(queries)
        for members in groups.values():
            try:
                prediction = self._forward([queries[i] for i in members])
            except Exception as error:
                for i in members:
                    answers[i] = error
                continue
            start = 0
            for i in members:
                stop = start + queries[i].x.shape[0]
                # the query's own level: floats on the host again, where a joined batch had one for each row
                answers[i] = replace(prediction.take(slice(start, stop)), level=queries[i].level)
                start = stop
        return answers  # type: ignore[return-value]

    def _check(self, branch: Branch) -> None:
        """Raise `NotSupported` unless there is a network that can answer a branch."""
        network: Any = self.networks.get(branch.network)
        if network is None:
            how = {
                "weak": "with weak=..., on the command line --weak",
                "classifier": "with classifier=..., on the command line --classifier",
            }
            raise NotSupported(
                f"the rule asks a network {branch.network!r}, but there are: {', '.join(self.networks)}; "
                f"give one {how.get(branch.network, 'among the networks of the Engine')}, or use another rule"
            )
        if branch.gradient and not hasattr(network, "log_prob"):
            raise NotSupported(
                f"the network {branch.network!r} is no classifier: it has no log_prob; give one that has"
            )
        if branch.perturbation is not None:
            if not hasattr(network, "check"):
                raise NotSupported(f"the network {branch.network!r} offers no perturbations; use another rule")
            network.check(branch.perturbation)
        if branch.inner and not getattr(network, "has_inner", False):
            raise NotSupported(
                f"the network {branch.network!r} has no inner head; train one that has (inner_head: true), or use autoguidance"
            )

    def _forward(self, queries: Sequence[Query]) -> Prediction:
        """Run queries that fit together as one batch, in chunks of at most ``max_batch`` rows."""
        branch = queries[0].branch
        x = queries[0].x if len(queries) == 1 else torch.cat([query.x for query in queries])
        context = self._context([query.context for query in queries])
        counts = [query.x.shape[0] for query in queries]
        level = _joined([query.level for query in queries], counts)
        perturbed = _perturbed(queries, counts)
        self.rows += x.shape[0]
        size = self.max_batch or x.shape[0]
        if size >= x.shape[0]:
            return self._ask(branch, x, level, context, perturbed)
        parts = []
        for start in range(0, x.shape[0], size):
            rows = slice(start, start + size)
            parts.append(self._ask(branch, x[rows], level.take(rows), context.take(rows), _within(perturbed, rows)))
        return _concatenated(parts, x, level)

    def _ask(self, branch: Branch, x: Tensor, level: Level, context: Context, perturbed: Perturbed) -> Prediction:
        self.forwards += 1
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self._believed(branch, x, level, context, perturbed)

    def _believed(self, branch: Branch, x: Tensor, level: Level, context: Context, perturbed: Perturbed) -> Prediction:
        network: Any = self.networks[branch.network]
        if branch.gradient:
            with torch.inference_mode(False), torch.enable_grad():
                x = x.detach().clone().requires_grad_()
                log_p = network.log_prob(x, level, context)
                if not isinstance(log_p, Tensor) or log_p.shape != x.shape[:1] or not log_p.requires_grad:
                    got = tuple(log_p.shape) if isinstance(log_p, Tensor) else type(log_p).__name__
                    raise BadValue(
                        f"a classifier gives log p(condition | x) of each image, {tuple(x.shape[:1])}, differentiable in x; "
                        f"this one gave {got}"
                    )
                (score,) = torch.autograd.grad(log_p.sum(), x)
            return Prediction.from_score(x.detach(), score, level)
        return network(x, level, context, perturbed) if perturbed else network(x, level, context)

    def _context(self, contexts: list[Context]) -> Context:
        """Join contexts; a group asks with the same ones at every step, so joins are kept until a trajectory leaves."""
        if len(contexts) == 1:
            return contexts[0]
        key = tuple(contexts)  # the very same objects: contexts compare by identity
        if key not in self._joined:
            if len(self._joined) >= 64:  # conditions that change at every step are joined anew and not kept for good
                self._joined.clear()
            self._joined[key] = Context.stack(contexts)
        return self._joined[key]


def _group(query: Query) -> Hashable:
    """Return what queries must share to be answered by one forward."""
    return (
        query.branch.network,
        query.branch.gradient,
        query.x.shape[1:],
        query.x.dtype,
        query.x.device,
        query.context.signature,
    )


def _joined(levels: Sequence[Level], counts: Sequence[int]) -> Level:
    """Return one level for a batch: floats if all agree, else a value for each row."""
    if all(level == levels[0] for level in levels):
        return levels[0]
    repeats = torch.tensor(counts)
    t, alpha, sigma = (
        torch.tensor([getattr(level, name) for level in levels], dtype=torch.float64).repeat_interleave(repeats)
        for name in ("t", "alpha", "sigma")
    )
    return Level(t, alpha, sigma)


def _perturbed(queries: Sequence[Query], counts: Sequence[int]) -> Perturbed:
    """Return which rows of a joined batch are to be perturbed, and how; neighbours that agree are one entry."""
    found: list[tuple[Perturbation, slice]] = []
    start = 0
    for query, count in zip(queries, counts, strict=True):
        perturbation = query.branch.perturbation
        if perturbation is not None:
            if found and found[-1][0] == perturbation and found[-1][1].stop == start:
                start_before = found.pop()[1].start
                found.append((perturbation, slice(start_before, start + count)))
            else:
                found.append((perturbation, slice(start, start + count)))
        start += count
    return tuple(found)


def _within(perturbed: Perturbed, rows: slice) -> Perturbed:
    """Return the perturbed rows of a chunk, counted from its start."""
    cut = [(p, max(s.start, rows.start) - rows.start, min(s.stop, rows.stop) - rows.start) for p, s in perturbed]
    return tuple((p, slice(start, stop)) for p, start, stop in cut if start < stop)


def _concatenated(parts: Sequence[Prediction], x: Tensor, level: Level) -> Prediction:
    fractions = [part.variance_fraction for part in parts if part.variance_fraction is not None]
    inner = [part.inner for part in parts if part.inner is not None]
    return Prediction(
        x,
        level,
        torch.cat([part.x0 for part in parts]),
        torch.cat([part.eps for part in parts]),
        torch.cat(fractions) if fractions else None,
        _concatenated(inner, x, level) if inner else None,
    )
