"""Agreement with torchmetrics and prdc on identical features, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from prdc import compute_prdc
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from guidon import registry
from guidon.measure.observe import Rows

pytestmark = pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features")


class AsImages(nn.Module):
    """Takes images of one row of pixels for their features."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.num_features = wide

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def images(features: Tensor) -> Tensor:
    return features.unflatten(1, (3, 1, -1))


def sets(n: int, m: int, wide: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features of a sample and of a reference, correlated, with spectra that fall."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(wide, wide, generator=generator).double() * torch.linspace(1, 0.1, wide).double() / wide**0.5
    here = torch.randn(n, wide, generator=generator).double() @ mix * 1.2 + 0.1
    return here, torch.randn(m, wide, generator=generator).double() @ mix


def measured(text: str, here: Tensor, there: Tensor | None = None, what: str = "features") -> float:
    sample = Rows.of({f"net/{what}": here.numpy()})
    reference = None if there is None else Rows.of({f"net/{what}": there.numpy()})
    made = registry.parse("metric", text).statistic(sample, reference, "net")
    return float(made.values(torch.ones(1, made.n).double())[0])


@pytest.fixture(autouse=True)
def one_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(("n", "m", "wide"), [(900, 1100, 48), (60, 1100, 96), (60, 70, 96)])
def test_fid(n: int, m: int, wide: int) -> None:
    here, there = sets(n, m, wide)
    theirs = FrechetInceptionDistance(feature=AsImages(wide)).set_dtype(torch.float64)
    theirs.update(images(there), real=True)
    theirs.update(images(here), real=False)
    assert measured("fid", here, there) == pytest.approx(float(theirs.compute()), rel=1e-6)


@pytest.mark.parametrize(("text", "subsets", "size"), [("kid(7, 50)", 7, 50), ("kid", 1, 200)])
def test_kid(text: str, subsets: int, size: int) -> None:
    here, there = sets(200, 200, 48)
    theirs = KernelInceptionDistance(feature=AsImages(48), subsets=subsets, subset_size=size)
    theirs.update(images(there), real=True)
    theirs.update(images(here), real=False)
    torch.manual_seed(0)  # the subsets, and their order, are those of this seed
    assert measured(text, here, there) == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


@pytest.mark.parametrize(("n", "splits"), [(500, 10), (333, 10), (64, 1)])
def test_inception_score(n: int, splits: int) -> None:
    logits = torch.randn(n, 12, generator=torch.Generator().manual_seed(1)).double() * 3
    theirs = InceptionScore(feature=AsImages(12), splits=splits)
    theirs.update(images(logits))
    torch.manual_seed(0)
    assert measured(f"is({splits})", logits, what="logits") == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize(("n", "m"), [(400, 300), (150, 500)])
def test_precision_recall_density_coverage(n: int, m: int, k: int, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = sets(n, m, 24)
    theirs = compute_prdc(real_features=there.numpy(), fake_features=here.numpy(), nearest_k=k)
    for name, expected in theirs.items():
        assert expected > 0.05 and (name == "density" or expected < 1)
        assert measured(f"{name}({k})", here, there) == pytest.approx(float(expected), rel=1e-6)


def test_a_set_against_itself_has_the_density_of_prdc(capsys: pytest.CaptureFixture[str]) -> None:
    here, _ = sets(200, 10, 24)
    theirs = compute_prdc(real_features=here.numpy(), fake_features=here.numpy(), nearest_k=5)
    for name, expected in theirs.items():
        assert measured(f"{name}(5)", here, here) == pytest.approx(float(expected), rel=1e-6)
