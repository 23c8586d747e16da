"""What steering costs a pipeline of diffusers, and what a rule that asks less gives back: wall time side by side.

    python benchmarks/steering.py

A Stable Diffusion UNet of about 20 million parameters, one image of 64 x 64 latents, float32 on the CPU. In every round
the pipeline runs by itself, under ``cfg`` and under ``cfg`` in an interval that holds half of the steps, in turn; what is told are
the medians of the ratios of each round to the pipeline by itself. Writes results/steering.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from stages import machine
from torch import Tensor

import guidon

STEPS, WEIGHT = 8, 5.0
CONFIG = {
    "sample_size": 64,
    "block_out_channels": (64, 128, 224),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 256,
    "attention_head_dim": 8,
}


def pipeline() -> Any:
    """Return a pipeline of random weights, without its text encoder."""
    torch.manual_seed(0)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
                                    up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4),
        text_encoder=None,
        tokenizer=None,
        unet=diffusers.UNet2DConditionModel(**CONFIG).eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe = pipeline()
    told = {name: torch.randn(1, 77, 256) for name in ("prompt_embeds", "negative_prompt_embeds")}

    def run(weight: float = WEIGHT) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images: Tensor = pipe(
            **told, num_inference_steps=STEPS, guidance_scale=weight, output_type="latent", generator=generator
        ).images
        return images

    pipe.scheduler.set_timesteps(STEPS)
    levels = [float(((1 - a) / a) ** 0.5) for a in pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps]]
    low, high = sorted(levels)[STEPS // 4] * 0.99, sorted(levels)[STEPS // 4 + STEPS // 2 - 1] * 1.01
    rules = {"cfg": f"cfg({WEIGHT:g})", "interval": f"cfg({WEIGHT:g}, when=interval({low:.3f}, {high:.3f}))"}
    sides: dict[str, Callable[[], tuple[Tensor, int]]] = {"stock": lambda: (run(), 2 * STEPS)}

    def steered(rule: str) -> Callable[[], tuple[Tensor, int]]:
        def side() -> tuple[Tensor, int]:
            with guidon.steer(pipe, rule) as steering:
                return run(), steering.rows

        return side

    sides |= {name: steered(rule) for name, rule in rules.items()}
    same = (sides["stock"]()[0] - sides["cfg"]()[0]).abs().max().item()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    worked: dict[str, list[float]] = {name: [] for name in sides}  # without what other programs took meanwhile
    rows: dict[str, int] = {}
    for number in range(args.rounds):
        order = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
        for name in order:
            start, busy = time.perf_counter(), time.process_time()
            _, rows[name] = sides[name]()
            seconds[name].append(time.perf_counter() - start)
            worked[name].append(time.process_time() - busy)
        print(f"round {number + 1}: " + ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in sides), flush=True)

    def ratios(times: dict[str, list[float]]) -> dict[str, list[float]]:
        return {name: [a / b for a, b in zip(times[name], times["stock"], strict=True)] for name in rules}

    def medians(times: dict[str, list[float]]) -> dict[str, float]:
        return {name: round(statistics.median(values), 4) for name, values in times.items()}

    record = {
        "what": "wall time of a steered pipeline over that of the pipeline by itself, medians over interleaved rounds",
        "settings": {
            "parameters": sum(p.numel() for p in pipe.unet.parameters()),
            "latents": [1, 4, 64, 64],
            "steps": STEPS,
            "rounds": args.rounds,
            "threads": args.threads,
            "rules": rules,
        },
        "max_difference_of_cfg_from_stock": same,
        "network_evaluations": rows,
        "seconds": medians(seconds),
        "cpu_seconds": medians(worked),
        "ratio_to_stock": medians(ratios(seconds)),
        "cpu_ratio_to_stock": medians(ratios(worked)),
        "quartiles_of_the_ratio": {
            name: [round(q, 4) for q in statistics.quantiles(values, n=4)[::2]]
            for name, values in ratios(seconds).items()
        },
        "targets": {"cfg": 1.01, "interval": 0.8},
        "machine": machine(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "date": time.strftime("%Y-%m-%d"),
        "command": "python benchmarks/steering.py",
    }
    path = Path(__file__).parent / "results" / "steering.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps({key: record[key] for key in ("seconds", "ratio_to_stock", "cpu_ratio_to_stock")}, indent=2))


if __name__ == "__main__":
    main()
