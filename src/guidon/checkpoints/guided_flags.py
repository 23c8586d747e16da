"""The flags of guided-diffusion's scripts, which say what a checkpoint is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from guidon.checkpoints.foreign import Blueprint
from guidon.checkpoints.guided_diffusion import classifier_blueprint, model_blueprint
from guidon.errors import BadValue, UnknownName
from guidon.noise.tables import VPTable

Script = Literal["image", "upsampler", "classifier"]

DEFAULTS: dict[str, Any] = {
    "image_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "dropout": 0.0,
    "class_cond": False,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "learn_sigma": False,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "predict_xstart": False,
    "rescale_timesteps": False,
    "large_size": 256,
    "small_size": 64,
    "classifier_width": 128,
    "classifier_depth": 2,
    "classifier_attention_resolutions": "32,16,8",
    "classifier_use_scale_shift_norm": True,
    "classifier_resblock_updown": True,
    "classifier_pool": "attention",
}
# of how a script runs, not of what the network is
RUNNING = """
use_checkpoint use_fp16 classifier_use_fp16 timestep_respacing use_kl rescale_learned_sigmas sigma_small
data_dir val_data_dir schedule_sampler lr anneal_lr weight_decay lr_anneal_steps iterations batch_size microbatch
ema_rate log_interval eval_interval save_interval resume_checkpoint fp16_scale_growth noised
clip_denoised num_samples use_ddim model_path classifier_path classifier_scale base_samples base_name
"""
LEVELS: dict[int, tuple[float, ...]] = {
    32: (1, 2, 2, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
UPSAMPLER_LEVELS = {**LEVELS, 512: LEVELS[256]}
YES, NO = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


def read_flags(text: str) -> dict[str, Any]:
    """Return the flags of a line such as "--image_size 64 --class_cond True", without those of how a script runs.

    Raises:
        UnknownName: there is no such flag.
        BadValue: a flag has no value, or one of the wrong type.
    """
    try:
        words = [
            part for word in shlex.split(text) for part in (word.split("=", 1) if word.startswith("--") else [word])
        ]
    except ValueError as error:
        raise BadValue(
            f"the flags cannot be read ({error}); give them as in a shell, --name value --name value"
        ) from error
    flags: dict[str, Any] = {}
    for name, value in zip(words[::2], words[1::2] + [""] * (len(words) % 2), strict=True):
        flag = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--"):
            raise BadValue(f"the flags are pairs, --name value, and {name!r} stands where a name, --..., should")
        if not value or value.startswith("--"):
            raise BadValue(f"the flags are pairs, and {name} has no value; write {name} VALUE, or leave it out")
        if flag in RUNNING.split():
            continue
        if flag not in DEFAULTS:
            raise UnknownName("flag of guided-diffusion", flag, DEFAULTS)
        flags[flag] = _typed(flag, value)
    return flags


def blueprint(
    flags: Mapping[str, Any],
    script: Script,
    *,
    count: int = 1000,
    classes: Sequence[str] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Blueprint:
    """Return what a checkpoint becomes.

    Args:
        flags: over the project's defaults.
        script: whose flags they are: of a model of images, of an upsampler, of a classifier.
        count: number of classes, where there are any; 1000 in the project.
        classes: their names; left out: numbers.
        origin: what to remember of where it comes from.
    """
    given = {**DEFAULTS, **flags}
    count = len(classes) if classes else count
    process = VPTable(given["noise_schedule"], given["diffusion_steps"], rescale_clock=given["rescale_timesteps"])
    if script == "classifier":
        return classifier_blueprint(_classifier(given, count), process=process, classes=classes, origin=origin)
    upsampler = script == "upsampler"
    return model_blueprint(
        _network(given, count, given["large_size"] if upsampler else given["image_size"], upsampler),
        process=process,
        output="x0" if given["predict_xstart"] else "eps",
        classes=classes,
        small=given["small_size"] if upsampler else None,
        origin=origin,
    )


def _network(given: Mapping[str, Any], count: int, side: int, upsampler: bool) -> dict[str, Any]:
    """Return the constructor arguments of a UNet for flags."""
    return {
        "image_size": side,
        "in_channels": 3,
        "model_channels": given["num_channels"],
        "out_channels": 6 if given["learn_sigma"] else 3,
        "num_res_blocks": given["num_res_blocks"],
        "attention_resolutions": _factors(side, given["attention_resolutions"]),
        "dropout": given["dropout"],
        "channel_mult": _levels(side, given["channel_mult"], UPSAMPLER_LEVELS if upsampler else LEVELS),
        "num_classes": count if given["class_cond"] else None,
        "num_heads": given["num_heads"],
        "num_head_channels": given["num_head_channels"],
        "num_heads_upsample": given["num_heads_upsample"],
        "use_scale_shift_norm": given["use_scale_shift_norm"],
        "resblock_updown": given["resblock_updown"],
        "use_new_attention_order": given["use_new_attention_order"],
    }


def _classifier(given: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the constructor arguments of a classifier for flags."""
    side = given["image_size"]
    return {
        "image_size": side,
        "in_channels": 3,
        "model_channels": given["classifier_width"],
        "out_channels": count,
        "num_res_blocks": given["classifier_depth"],
        "attention_resolutions": _factors(side, given["classifier_attention_resolutions"]),
        "channel_mult": _levels(side, given["channel_mult"], LEVELS),
        "num_head_channels": 64,
        "use_scale_shift_norm": given["classifier_use_scale_shift_norm"],
        "resblock_updown": given["classifier_resblock_updown"],
        "pool": given["classifier_pool"],
    }


def _factors(side: int, resolutions: str) -> tuple[int, ...]:
    """Return downsampling factors for sides of feature maps, "16,8"."""
    return tuple(side // int(_number("attention_resolutions", part)) for part in resolutions.split(","))


def _levels(side: int, given: str, usual: Mapping[int, tuple[float, ...]]) -> tuple[float, ...]:
    if given:
        return tuple(_number("channel_mult", part) for part in given.split(","))
    if side not in usual:
        raise BadValue(
            f"images of side {side} have no usual channel_mult ({', '.join(map(str, usual))} have); give --channel_mult 1,2,2"
        )
    return usual[side]


def _number(flag: str, text: str) -> float:
    try:
        return float(text) if float(text) > 0 else _refuse(flag, text)
    except ValueError:
        return _refuse(flag, text)


def _refuse(flag: str, text: str) -> float:
    raise BadValue(f"--{flag} is numbers > 0 with commas between, such as 16,8; {text!r} is none") from None


def _typed(flag: str, text: str) -> Any:
    """Return the value of a flag, of the type of its default."""
    default = DEFAULTS[flag]
    if isinstance(default, bool):
        if text.lower() not in YES + NO:
            raise BadValue(f"--{flag} is True or False, not {text!r}")
        return text.lower() in YES
    unset = flag.startswith("num_head") and text == "-1"
    try:
        value = type(default)(text)
        fits = 0 <= value < 1 if isinstance(default, float) else isinstance(default, str) or value > 0 or unset
    except ValueError:
        fits = False
    if not fits:
        kind = "a whole number > 0" if isinstance(default, int) else "a number, at least 0 and less than 1"
        raise BadValue(f"--{flag} is {kind}, not {text!r}")
    return value
