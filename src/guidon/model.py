"""The bundle that a user loads, samples and saves: network, process, conditions, and how to sample it by default."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from guidon import registry
from guidon._version import __version__
from guidon.checkpoints.native import (
    CONFIG,
    check_tensors,
    local_folder,
    read_checkpoint,
    read_tokenizer,
    upload,
    write_checkpoint,
)
from guidon.classifier import Classifier
from guidon.classifier_request import LogProb, as_classifier, told_to_classifier
from guidon.clip import Clip
from guidon.conditioning.condition import Condition, Context
from guidon.conditioning.images import Pictures, beside_noise
from guidon.conditioning.labels import LabelEncoder, Labels
from guidon.conditioning.text import Texts
from guidon.conditioning.tokenizer import Tokenizer
from guidon.errors import BadValue, DamagedCheckpoint, UnknownLabel
from guidon.guidance import Rule
from guidon.model_config import (
    ModelConfig,
    check_fit,
    check_tokenizer,
    first_problem,
    needs_null,
    saved_tokenizer,
    told_doors,
)
from guidon.model_request import (
    Label,
    as_member,
    as_rule,
    as_text,
    beside_image,
    check_alike,
    check_needed,
    class_id,
    conditions,
    described,
    for_network,
    is_number,
    listed,
    positive,
    seeds_of,
    wanted,
    warn_of_long,
    whole,
)
from guidon.models.degrade import degraded
from guidon.models.denoiser import Denoiser
from guidon.models.text_encoder import text_encoder
from guidon.noise import Process
from guidon.noise.grids import Grid
from guidon.sampling.known import Known
from guidon.solvers import Solver
from guidon.tasks.generate import OnStep, Samples, generate


class Model(nn.Module):
    """A conditional diffusion model.

    Args:
        config: what it is; see `ModelConfig`.
        tokenizer: of a model of texts; without one it can be told tokens only (`Texts`).

    Attributes:
        denoiser: network, process and output.
        encoder: turns classes or texts into what the network is told. The null is the last row of classes, or the empty text.
            None when unconditional.
        tokenizer: as given.
        name: where it was loaded from, for records.

    Raises:
        BadValue: the parts of the config do not fit each other.
        ShapeMismatch: the network cannot take images of the config's shape.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.name, self.tokenizer = "unnamed", tokenizer
        if config.text is not None:
            check_tokenizer(tokenizer, config.text.tokenizer, config.text.vocabulary)
        elif tokenizer is not None:
            raise BadValue("a model without texts needs no tokenizer; leave it out")
        network_type = registry.lookup("network", config.network)
        try:
            architecture = network_type.Config(**config.architecture)
        except ValidationError as error:
            raise BadValue(f"the architecture of the {config.network} does not fit: {first_problem(error)}") from error
        check_fit(config, architecture)
        network = network_type(architecture)
        # with every default written out, so that a saved model does not change when a default does
        self.config = config.model_copy(update={"architecture": network.config.model_dump(mode="json")})
        self.denoiser = Denoiser(
            network,
            registry.parse("process", config.process),
            registry.parse("output", config.output),
            config.learned_variance,
        )
        if (
            config.classes is None and config.text is None and needs_null(config.sample, self.process)
        ):  # there is nothing to be guided towards
            plain = config.sample.model_copy(update={"rule": "cfg(1)"})
            self.config = self.config.model_copy(update={"sample": plain})
        self.encoder: nn.Module | None = None
        doors = told_doors(config, network.config)
        if config.text is not None:
            self.encoder = text_encoder(config.text, doors)
        elif config.classes is not None:
            ((door, width),) = doors.items()
            deviation = getattr(network, "label_deviation", 1.0)
            self.encoder = LabelEncoder(len(config.classes), width, door, null=config.null, deviation=deviation)  # type: ignore[arg-type]

    @property
    def network(self) -> nn.Module:
        """The network alone."""
        return self.denoiser.network

    @property
    def process(self) -> Process:
        """The noise process."""
        return self.denoiser.process

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, or None."""
        return self.config.classes

    @property
    def has_null(self) -> bool:
        """Whether a model of classes or texts has learned to do without one."""
        return self.config.text is not None or (self.config.classes is not None and self.config.null)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.config.shape

    @property
    def low_res(self) -> tuple[int, int] | None:
        """Height and width of the small image that a super-resolution model enlarges."""
        return self.config.low_res

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def encode(self, told: Condition | None) -> Context:
        """Return what the network is told; an empty context for an unconditional model."""
        if self.encoder is None or told is None:
            return Context()
        return self.encoder(told)

    def condition(self, names: Sequence[Label] | Texts) -> Condition:
        """Turn class names or ids, or texts, into what `encode` takes; None for no class, or no text.

        Raises:
            UnknownLabel: there is no such class, or the model has none.
            BadValue: what is given is no text, or tokens of another tokenizer, or the model of texts was made without one.
        """
        if self.config.text is None:
            if self.classes is None:
                raise UnknownLabel("this model is told no classes and no texts; leave them out")
            ids = [class_id(name, self.classes) for name in names]  # type: ignore[union-attr]
            return Labels(torch.tensor(ids, dtype=torch.long), len(self.classes))
        if isinstance(names, Texts):
            if names.empty != self.config.text.tokenizer.empty:
                raise BadValue(
                    "the empty text of these tokens is not that of the model; make them with the model's own tokenizer"
                )
            return dataclasses.replace(names, vocabulary=self.config.text.vocabulary)
        if self.tokenizer is None:
            raise BadValue("this model has no tokenizer; tell it tokens (Texts), or load it with one")
        return self.tokenizer.encode([as_text(name) for name in names], warn=False)

    def degraded(self, noise: float = 0.1, seed: int = 0) -> Model:
        """Return a copy with noise in its weights, to steer away from: ``sample(..., weak=model.degraded())``.

        Args:
            noise: deviation of the noise, in deviations of each matrix' own values, > 0.
            seed: of the noise.
        """
        worse = degraded(self, noise, seed)
        worse.name = f"self:{noise!r}" + (f":{seed}" if seed else "")  # as --weak takes it
        return worse

    @torch.no_grad()
    def sample(
        self,
        told: Label | Sequence[Label] | Texts = None,
        *,
        n: int | None = None,
        rule: str | Rule | float | None = None,
        solver: str | Solver | None = None,
        grid: str | Grid | None = None,
        steps: int | None = None,
        temperature: float | None = None,
        seed: int | Sequence[int] = 0,
        negative: Label | Sequence[Label] = (),
        also: Label | Sequence[Label] = (),
        partial: Label | Sequence[Label] = (),
        weak: Model | None = None,
        classifier: Classifier | Clip | LogProb | None = None,
        trace: bool = False,
        image: Pictures | None = None,
        inpaint: Pictures | None = None,
        repaint: Pictures | None = None,
        batching: str = "joint",
        max_batch: int | None = 128,
        precision: str = "fp32",
        on_step: OnStep | None = None,
    ) -> Samples:
        """Sample images under guidance.

        Args:
            told: a class (name or id) or several; left out: every class in turn. None among several: no class. Of a model of
                texts a text or several, or their tokens; left out, empty or None: no text.
            n: images for each that is told; where nothing is told the number of images (one per class if left out too).
            rule: text form or object; a number w stands for CFG(w). Left out, as all that follows: the model's default.
            solver, grid: text form or object.
            steps: number of steps, >= 1.
            temperature: what the noise that sampling starts from is multiplied by, > 0.
            seed: of the first image, the others count on from it; or one seed per image.
            negative: a class or text, or several ([None] for none), to steer away from, by ``negative``, ``avoid``, ``perp-neg``.
            also: further classes or texts for ``conjunction``.
            partial: a part of what is asked for (an animal, where a cat is), for ``two-scale``.
            weak: a worse model of the same classes, for ``autoguidance``.
            classifier: for ``classifier``, a `Classifier`, a `Clip` (which is told the text, or the name of the class), or any function
                (x, level, class ids (B,)) -> log p(class | x) (B,), differentiable in x. A model that is told nothing takes the labels
                of the classifier, the texts of a CLIP, of a function any numbers.
            trace: whether to record what guidance does at each step, in ``Samples.trace``.
            image: what a super-resolution model enlarges: one for all images, or one for each; pictures, or (N, C, h, w) in [-1, 1].
            inpaint: what a model that completes images completes, as ``image``, of the model's size; left out: nothing is known.
            repaint: which pixels of ``inpaint`` are painted anew: white in a picture, 1 in (N, 1, H, W); the others are kept.
            batching: "joint" or "sequential"; see `Engine`.
            max_batch: rows of one forward at most.
            precision: "fp32", or "bf16": faster, and no longer the same image at any batch size to the last bit.
            on_step: called with (steps done, steps, the guided estimate (N, C, H, W)) for progress and previews.

        Returns:
            `Samples`, in the order of what is told.

        Raises:
            BadValue, UnknownName, UnknownLabel: an argument is not what it must be.
            NotSupported: the rule wants something that this model lacks or that was not given; raised before the first step.
        """
        defaults = self.config.sample
        known = classifier.classes if self.classes is None and isinstance(classifier, Classifier) else self.classes
        names = wanted(self, known, told, n, numbers=classifier is not None)
        seeds = seeds_of(seed, len(names))
        rule_ = as_rule(defaults.rule if rule is None else rule)
        solver_ = as_member("solver", defaults.solver if solver is None else solver)
        grid_ = as_member("grid", defaults.grid if grid is None else grid)
        steps = defaults.steps if steps is None else steps
        temperature = positive("temperature", defaults.temperature if temperature is None else temperature)
        levels = grid_.levels(self.process, whole("steps", steps))
        further = {
            name: [] if other is None else listed(other)
            for name, other in (("negative", negative), ("also", also), ("partial", partial))
        }
        shown = beside_noise(
            self.shape,
            len(names),
            low_res=self.low_res,
            completes=self.config.inpaint,
            image=image,
            inpaint=inpaint,
            repaint=repaint,
        )
        also_told = further if self.encoder is not None or classifier is None else {}  # else for the classifier alone
        contexts = conditions(self, names, seeds, also_told)
        contexts |= {"null": contexts["given"]} if self.encoder is None else {}
        networks: dict[str, Any] = {"main": self.denoiser}
        if weak is not None:
            if not isinstance(weak, Model):
                raise BadValue(f"weak is a model, such as guidon.load(...) or model.degraded(); got {weak!r}")
            check_alike(weak, self, names)
            networks["weak"] = weak.denoiser
            contexts |= for_network("weak", conditions(weak, names, seeds, also_told))
        shown = None if shown is None else shown.to(self.device)
        contexts = contexts if shown is None else beside_image(contexts, shown)
        if classifier is not None:
            networks["classifier"] = as_classifier(classifier, self)
            contexts |= dict.fromkeys(for_network("classifier", contexts))  # what a network is told are no class ids
            contexts |= told_to_classifier(classifier, known, names, further)
        check_needed(rule_, further, [name for name in networks if name != "main"])
        warn_of_long((self, weak, classifier), names, further, known)
        models: list[nn.Module] = [self, *(other for other in (weak, classifier) if isinstance(other, nn.Module))]
        modes = [model.training for model in models]
        for model in models:
            model.eval()
        try:
            samples = generate(
                networks,
                contexts,
                process=self.process,
                levels=levels,
                solver=solver_,
                rule=rule_,
                seeds=seeds,
                shape=self.shape,
                temperature=temperature,
                known=Known.among(shown, self.shape[0]) if shown is not None and self.config.inpaint else None,
                device=self.device,
                batching=batching,
                max_batch=max_batch,
                precision=precision,
                on_step=on_step,
                trace=trace,
            )
        finally:
            for model, training in zip(models, modes, strict=True):
                model.train(training)
        record = {
            "guidon": __version__,
            "torch": torch.__version__,
            "model": self.name,
            "rule": registry.to_text(rule_),
            "solver": registry.to_text(solver_),
            "grid": registry.to_text(grid_),
            "steps": len(levels) - 1,  # a respacing has its own number
            "temperature": temperature,
            "labels": described(names, known),
            "seeds": list(seeds),
            "size": [self.shape[2], self.shape[1]],
            "batching": batching,
            "max_batch": max_batch,
            "precision": precision,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "nfe": samples.nfe,
        }
        record |= {name: described(told, known) for name, told in further.items() if told}
        if weak is not None:
            record["weak"] = weak.name
        if classifier is not None:
            calibrated = isinstance(classifier, Classifier) and classifier.tempered
            leads = isinstance(classifier, Classifier | Clip)
            record["classifier"] = {"name": classifier.name, "calibrated": calibrated} if leads else None  # type: ignore[union-attr]
        return dataclasses.replace(samples, labels=self._ids(names, known), record=record)

    def _ids(self, names: Sequence[Label] | Texts, known: Sequence[str] | None) -> tuple[int | None, ...]:
        """Return the class of each image, None where there is none."""
        if isinstance(names, Texts):
            return (None,) * len(names)
        if known is None:
            return tuple(int(name) if is_number(name) else None for name in names)
        return tuple(None if name is None else class_id(name, known) for name in names)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder, whole or not at all; raises `SaveFailed`, or `BadValue` for a model of texts without a tokenizer."""
        tokenizer = None if self.config.text is None else saved_tokenizer(self.tokenizer)
        write_checkpoint(folder, self.config.model_dump(mode="json"), self.state_dict(), tokenizer)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Model:
        """Load a model from a folder or from the Hugging Face hub.

        Args:
            source: a folder that `save_pretrained` or `guidon train` wrote, or a hub id such as "owner/name".

        Raises:
            MissingFile: there is no such folder, or it lacks a file.
            DamagedCheckpoint: a file is cut short, or the tensors do not fit the config.
        """
        config, tensors = read_checkpoint(local_folder(source))
        if config.get("kind") in ("classifier", "clip"):
            raise BadValue(
                f"{source} holds a {config['kind']}, not a model; give it as classifier, on the command line --classifier"
            )
        try:
            settings = ModelConfig(**config)
            told = None if settings.text is None else read_tokenizer(local_folder(source))
            tokenizer = (
                None if told is None or settings.text is None else Tokenizer.from_json(told, settings.text.tokenizer)
            )
            model = cls(settings, tokenizer)
        except ValidationError as error:
            raise DamagedCheckpoint(f"{source}/{CONFIG} is not a model's config: {first_problem(error)}") from error
        check_tensors(tensors, model.state_dict(), source)
        model.load_state_dict(tensors)
        model.name = str(source)
        return model.eval()

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to the Hugging Face hub and return its address.

        Args:
            repo_id: "owner/name"; made if it does not exist.
            private: whether a repository that is made is private.
            token: access token; left out: the one of `hf auth login`.

        Raises:
            SaveFailed: the hub did not take it.
        """
        return upload(self.save_pretrained, repo_id, private=private, token=token)


def load(source: str | Path) -> Model:
    """Load a model from a folder or a hub id; see `Model.from_pretrained`."""
    return Model.from_pretrained(source)
