"""What the images of a cell cost: evaluations, seconds and memory, written down block by block."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor

from guidon.errors import SaveFailed
from guidon.measure.observe import ImageSet
from guidon.study.images import Sampled
from guidon.study.store import Cost

LOG = "cost.jsonl"


class Logged(ImageSet):
    """Sampled images, with a log of what each block took, which a process that goes on with the set goes on with.

    The peak of memory is that of sampling a block; what is held at that time, weights of networks that look among it, counts.

    Args:
        images: to sample.
        log: file, a line for each block; the last one of a block counts.
        device: whose memory is watched.
    """

    def __init__(self, images: Sampled, log: Path, device: torch.device) -> None:
        self.images, self.log, self.device = images, log, device
        self.fingerprint, self.labels, self.classes = images.fingerprint, images.labels, images.classes
        self.captions = images.captions

    def __len__(self) -> int:
        return len(self.images)

    def block(self, start: int, stop: int) -> Tensor:
        forget_peak(self.device)
        block = self.images.block(start, stop)
        took = {"images": len(block), "seconds": self.images.seconds[start], "nfe": self.images.nfe[start]}
        line = json.dumps({"start": start, **took, "peak_memory": peak_memory(self.device)})
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a") as file:
                file.write("\n" + line)
        except OSError as error:
            raise SaveFailed(
                f"could not write {self.log} ({error.strerror or error}); free space, then go on with the same command"
            ) from error
        return block

    def cost(self) -> Cost:
        """Return what all blocks took."""
        whole = [
            line for line in self.log.read_text().splitlines() if line.endswith("}")
        ]  # a kill may leave half of one
        lines = [json.loads(line) for line in whole]
        blocks = {line["start"]: line for line in lines}.values()
        images = sum(block["images"] for block in blocks)
        return Cost(
            nfe=sum(block["nfe"] * block["images"] for block in blocks) / images,
            seconds=sum(block["seconds"] for block in blocks),
            peak_memory=max(block["peak_memory"] for block in blocks),
            images=images,
        )


def forget_peak(device: torch.device) -> None:
    """Begin to watch memory anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # Linux: the peak of resident memory is what is resident now
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Return the bytes that were held at the most: on a GPU by tensors, else by the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
