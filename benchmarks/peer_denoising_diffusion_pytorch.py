"""The peer: class-conditional diffusion with `denoising-diffusion-pytorch` (MIT), used as its own README and trainer use it.

Its wheel is fetched without dependencies and its module is loaded by path, because the package's ``__init__`` imports
torchvision. The module has no trainer for conditional models, so `train` is the package's `Trainer` in few lines: Adam
with betas (0.9, 0.99), gradients clipped at 1, horizontal flips, an EMA of 0.995 every tenth step with the warm-up of its
`ema_pytorch`. Where its defaults would hold it back on a CPU in twenty minutes it gets better ones (see `Settings`).

One repair: at ``cond_scale=1`` its ``forward_with_cond_scale`` returns one value where its sampler unpacks two, so plain
conditional sampling fails. `_repair` returns that value twice, which also spares it the second forward.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from guidon.training.threads import fastest_threads

VERSION = "2.3.4"
SAMPLING = {"bf16": True, "channels_last": True}  # its samples are drawn so, in a third of the time


@dataclass(frozen=True)
class Settings:
    """How the peer is built and trained; every departure from its own defaults is a help to it.

    Args:
        dim, dim_mults: its Unet, about the size of ours.
        cond_drop_prob: 0.1 instead of its 0.5: more steps go to the conditional task.
        batch: images a step (its trainer: 16).
        lr: constant learning rate (its trainer: 1e-4).
        bf16: automatic mixed precision (its trainer offers it, off by default: off).
        channels_last: memory layout (it never sets one: off).
        ema_decay, ema_every: as in its trainer.
    """

    dim: int = 32
    dim_mults: tuple[int, ...] = (1, 2, 2)
    cond_drop_prob: float = 0.1
    batch: int = 32
    lr: float = 1e-3
    bf16: bool = False
    channels_last: bool = False
    ema_decay: float = 0.995
    ema_every: int = 10


def fetch(folder: Path) -> ModuleType:
    """Download the wheel into ``folder`` (once) and return its classifier-free guidance module."""
    path = folder / "denoising_diffusion_pytorch" / "classifier_free_guidance.py"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = f"denoising-diffusion-pytorch=={VERSION}"
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), wanted], check=True
        )
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
    spec = importlib.util.spec_from_file_location("peer_classifier_free_guidance", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module)["tqdm"] = lambda steps, **_: steps  # its progress bars
    _repair(module.Unet)
    return module


def build(module: ModuleType, settings: Settings, classes: int, size: int) -> Any:
    """Return its `GaussianDiffusion` at its defaults (1000 steps, cosine schedule, noise prediction) around its `Unet`."""
    unet = module.Unet(
        dim=settings.dim, dim_mults=settings.dim_mults, num_classes=classes, cond_drop_prob=settings.cond_drop_prob
    )
    diffusion = module.GaussianDiffusion(unet, image_size=size)
    return diffusion.to(memory_format=torch.channels_last) if settings.channels_last else diffusion


def _repair(unet: Any) -> None:
    """Mend sampling at ``cond_scale=1``: the conditional output, where two outputs are unpacked, stands for both."""
    original = unet.forward_with_cond_scale

    def forward_with_cond_scale(self: nn.Module, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        out = original(self, *args, **options)
        return out if isinstance(out, tuple) else (out, out)

    unet.forward_with_cond_scale = forward_with_cond_scale


def rates(
    module: ModuleType, images: Tensor, labels: Tensor, size: int, classes: int, most_threads: int
) -> list[dict[str, Any]]:
    """Time a few training steps in every precision and layout, each with the thread count that is fastest for it."""
    found: list[dict[str, Any]] = []
    for bf16, channels_last in itertools.product((False, True), (False, True)):
        settings = replace(Settings(), bf16=bf16, channels_last=channels_last)
        diffusion = build(module, settings, classes, size)
        run = partial(train, diffusion, images, labels, settings, seed=0)
        before = torch.get_num_threads()
        threads = fastest_threads(partial(run, seconds=0.0), most_threads)
        torch.set_num_threads(threads)
        found.append({"settings": asdict(settings), "threads": threads, **run(seconds=5.0)[1]})
        torch.set_num_threads(before)
    return found


def train(
    diffusion: Any,
    images: Tensor,
    labels: Tensor,
    settings: Settings,
    *,
    seconds: float,
    seed: int,
    log: Callable[[str], None] = print,
) -> tuple[Any, dict[str, float]]:
    """Train on uint8 images (N, C, H, W) for a wall-clock budget, one step at least; return the EMA copy and what was done."""
    torch.manual_seed(seed)
    ema = copy.deepcopy(diffusion).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=settings.lr, betas=(0.9, 0.99))
    step, running, began = 0, 0.0, time.perf_counter()
    while step == 0 or time.perf_counter() - began < seconds:
        index = torch.randint(0, len(images), (settings.batch,))
        loss = _loss(diffusion, images[index], labels[index], settings)
        loss.backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % settings.ema_every == 0:
            _follow(ema, diffusion, _ema_decay(step, settings.ema_decay))
        running = loss.item() if step == 1 else 0.99 * running + 0.01 * loss.item()
        if step % 500 == 0:
            log(
                f"peer: step {step}, loss {running:.4f}, {step * settings.batch / (time.perf_counter() - began):.0f} images/s"
            )
    spent = time.perf_counter() - began
    return ema, {
        "steps": step,
        "images": step * settings.batch,
        "seconds": spent,
        "images_per_second": step * settings.batch / spent,
        "loss": running,
    }


def _loss(diffusion: Any, pixels: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    x = pixels.float() / 255
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    if settings.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with precision(settings):
        loss: Tensor = diffusion(x, classes=labels)
    return loss


def _ema_decay(step: int, limit: float) -> float:
    """Return the decay of `ema_pytorch` at its defaults: none for 100 steps, then ``1 - (1 + s)^(-2/3)`` up to ``limit``."""
    since = step - 100 - 1
    return 0.0 if since <= 0 else min(limit, 1 - (1 + since) ** (-2 / 3))


@torch.no_grad()
def _follow(ema: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, current in zip(ema.parameters(), model.parameters(), strict=True):
        kept.lerp_(current, 1 - decay)


def precision(settings: Settings) -> AbstractContextManager[Any]:
    """Return the autocast context that the settings ask for."""
    return torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16)


@torch.no_grad()
def sample(
    diffusion: Any,
    labels: Tensor,
    settings: Settings,
    *,
    cond_scale: float,
    rescaled_phi: float,
    eta: float,
    steps: int,
    seed: int,
    batch: int = 100,
) -> tuple[Tensor, float]:
    """Sample with its own DDIM; return uint8 images (N, C, H, W) and the seconds it took."""
    torch.manual_seed(seed)
    diffusion.sampling_timesteps, diffusion.is_ddim_sampling, diffusion.ddim_sampling_eta = steps, True, eta
    began = time.perf_counter()
    with precision(settings):
        parts = [
            diffusion.sample(part, cond_scale=cond_scale, rescaled_phi=rescaled_phi) for part in labels.split(batch)
        ]
    seconds = time.perf_counter() - began
    return (torch.cat(parts).float().clamp(0, 1) * 255).round().byte(), seconds
