"""The models of a sweep, each opened once and held while it is of use."""

from __future__ import annotations

import torch

from guidon.measure.networks.network import weights_digest
from guidon.measure.observe import digest
from guidon.model import Model
from guidon.models.degrade import read_degraded
from guidon.study.setting import Setting
from guidon.training.snapshots import reconstruct_model

MODELS = 2  # that are held at once, beside what is made of them
Name = tuple[str, float | None]


class Shelf:
    """Opens the models of settings; the few that were opened last are held.

    Args:
        device: where they run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.models: dict[Name, Model] = {}
        self._weak: dict[tuple[str, float | None, str], Model] = {}
        self._digests: dict[tuple[str, float | None, str | None], str] = {}
        self._shapes: dict[Name, tuple[int, int, int]] = {}

    def model(self, setting: Setting) -> Model:
        """Return the model of a setting."""
        name = (setting.model, setting.average)
        if name not in self.models:
            if len(self.models) >= MODELS:
                oldest = next(iter(self.models))
                del self.models[oldest]
                self._weak = {key: model for key, model in self._weak.items() if key[:2] != oldest}
            made = Model.from_pretrained(name[0]) if name[1] is None else reconstruct_model(name[0], name[1])
            self.models[name] = made.to(self.device)
            self._shapes[name] = made.shape
        return self.models[name]

    def weaker(self, setting: Setting, text: str) -> Model:
        """Return the worse model that a setting steers away from."""
        name, noisy = (setting.model, setting.average, text), read_degraded(text)
        if noisy is None:
            return self.model(Setting(model=text))
        model = self.model(setting)
        if name not in self._weak:
            self._weak[name] = model.degraded(*noisy)
        return self._weak[name]

    def digest(self, setting: Setting, weak: str | None = None) -> str:
        """Return the fingerprint of the model of a setting, or of the worse one."""
        name = (setting.model, setting.average, weak)
        if name not in self._digests:
            self._digests[name] = fingerprint(self.model(setting) if weak is None else self.weaker(setting, weak))
        return self._digests[name]

    def shape(self, setting: Setting) -> tuple[int, int, int]:
        """Return the shape (C, H, W) of the images of a setting; a model that was opened before is not opened again for it."""
        name = (setting.model, setting.average)
        return self._shapes[name] if name in self._shapes else self.model(setting).shape


def fingerprint(model: Model) -> str:
    """Return a fingerprint of what a model is: its weights and its config, without how it is sampled and was trained."""
    config = model.config.model_dump(mode="json", exclude={"sample", "training"})
    return digest(config, weights_digest(model.state_dict()), model.tokenizer and model.tokenizer.to_json())
