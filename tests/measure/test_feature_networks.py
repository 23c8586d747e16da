"""Feature networks see what the networks themselves say of images that were prepared as published."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from support.encoders import _spread, tiny_clip
from torch import Tensor, nn

from guidon import registry
from guidon.errors import BadValue, DamagedCheckpoint, MissingFile, NotSupported, ShapeMismatch
from guidon.measure import networks
from guidon.measure.features import ClassifierConfig, FeatureClassifier
from guidon.measure.networks.network import BATCH, full_precision, weights_digest


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def classifier(seed: int = 0, channels: int = 3) -> FeatureClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FeatureClassifier(ClassifierConfig(4, channels, 8, (4, 8))).eval()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"), whole=True)


@pytest.fixture(scope="module")
def dinov2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(5)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    network = Dinov2Model(Dinov2Config(image_size=56, patch_size=14, **shape))
    _spread(network)
    folder = tmp_path_factory.mktemp("dinov2")
    network.save_pretrained(folder)
    return folder


def test_all_have_a_text_form() -> None:
    assert set(registry.names("features")) == {"classifier", "clip", "dinov2", "inception", "torchscript"}
    for text in ("dinov2", "inception", "classifier('runs/judge')", "torchscript('a.pt', pixels='unit', size=224)"):
        assert registry.to_text(registry.parse("features", text)) == text
    assert registry.parse("features", "dinov2").source == "facebook/dinov2-large"
    assert registry.parse("features", "clip").source == "openai/clip-vit-large-patch14"


def test_a_classifier_sees_what_it_saw_in_training(tmp_path: Path) -> None:
    network = classifier()
    network.save(tmp_path / "judge")
    observer = networks.Classifier(str(tmp_path / "judge")).open()
    images = noise(BATCH + 3, 3, 8, 8)
    seen = observer.look(images, None)
    assert sorted(seen) == ["classifier/features", "classifier/logits"]
    np.testing.assert_allclose(seen["classifier/features"], network.features(images).numpy(), atol=1e-6)
    np.testing.assert_allclose(seen["classifier/logits"], network.logits(images).numpy(), atol=1e-6)
    assert all(values.dtype == np.float32 for values in seen.values())
    grey = noise(2, 1, 8, 8)
    same = observer.look(grey.expand(-1, 3, -1, -1), None)["classifier/features"]
    np.testing.assert_array_equal(observer.look(grey, None)["classifier/features"], same)
    for wrong in (noise(1, 3, 9, 9), noise(1, 3, 8, 9)):
        with pytest.raises(ShapeMismatch, match=r"\(3, 8, 8\)"):
            observer.look(wrong, None)
    with pytest.raises(ShapeMismatch, match="train one on images like these"):
        networks.classifier.ClassifierObserver(classifier(channels=1)).look(images, None)


def test_a_fingerprint_is_of_weights_and_preparation(tmp_path: Path) -> None:
    open_ = networks.classifier.ClassifierObserver
    first = open_(classifier()).fingerprint
    assert open_(classifier()).fingerprint == first
    other = classifier()
    with torch.no_grad():
        other.head.bias[0] += 1e-6
    assert open_(other).fingerprint != first
    assert weights_digest({"a": torch.zeros(2)}) != weights_digest({"b": torch.zeros(2)})
    assert weights_digest({"a": torch.zeros(2)}) != weights_digest({"a": torch.zeros(2, 1)})
    assert weights_digest({"a": torch.tensor(1)}) != weights_digest({"a": torch.tensor(2)})
    assert weights_digest({"a": torch.arange(4).reshape(2, 2).T}) != weights_digest(
        {"a": torch.arange(4).reshape(2, 2)}
    )
    file = scripted(tmp_path, Plain())
    prints = [networks.TorchScript(str(file), *how).open().fingerprint for how in ((), ("unit",), ("uint8", 6))]
    assert len(set(prints)) == 3


def test_dinov2_is_the_class_token_of_a_squeezed_picture(dinov2_folder: Path) -> None:
    from transformers import AutoModel

    observer = networks.DinoV2(str(dinov2_folder)).open()
    images = noise(3, 3, 40, 60)
    shown = []
    for image in images:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
        shown.append((np.asarray(picture) / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    pixels = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float()
    network = AutoModel.from_pretrained(dinov2_folder).eval()
    with torch.no_grad():
        said = network(pixel_values=pixels).pooler_output  # the class token after the last norm
    np.testing.assert_allclose(observer.look(images, None)["dinov2/features"], said.numpy(), atol=1e-5)
    grey = observer.look(images[:, :1], None)["dinov2/features"]
    np.testing.assert_array_equal(grey, observer.look(images[:, :1].expand(-1, 3, -1, -1), None)["dinov2/features"])


def test_half_precision_in_the_file_is_no_half_precision_here(dinov2_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    AutoModel.from_pretrained(dinov2_folder).half().save_pretrained(tmp_path)
    observer = networks.DinoV2(str(tmp_path)).open()
    assert {parameter.dtype for parameter in observer.network.parameters()} == {torch.float32}
    images = noise(2, 3, 30, 30)
    plain = observer.look(images, None)["dinov2/features"]
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(observer.look(images, None)["dinov2/features"], plain)
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with full_precision(torch.device("cpu")):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"


def test_clip_gives_projected_images_and_captions(clip_folder: Path) -> None:
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    observer = networks.Clip(str(clip_folder)).open()
    images, captions = noise(3, 3, 30, 21), ["red cat", "", "dog " * 30]
    seen = observer.look(images, captions)
    network = CLIPModel.from_pretrained(clip_folder).eval()
    prepare = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    pixels = prepare([image.permute(1, 2, 0).numpy() for image in images], return_tensors="pt")["pixel_values"]
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    with torch.no_grad():
        picture = network.visual_projection(network.vision_model(pixel_values=pixels).pooler_output)
        alone = tokenizer(captions[0], return_tensors="pt")  # without padding
        text = network.text_projection(network.text_model(**alone).pooler_output)
    np.testing.assert_allclose(seen["clip/features"], picture.numpy(), atol=1e-5)
    np.testing.assert_allclose(seen["clip/text"][:1], text.numpy(), atol=1e-5)
    assert np.isnan(seen["clip/text"]).all(1).tolist() == [False, True, False]
    assert seen["clip/features"].shape == seen["clip/text"].shape == (3, 8)
    assert list(observer.look(images, None)) == ["clip/features"]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (x.float().mean((2, 3)) * self.weight)[:, :, None, None]


class LikeNvidia(Plain):
    def forward(self, img: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        features = img.float().mean((2, 3)) * self.weight
        if return_features:
            return features
        return torch.softmax(features / 50 + (0.0 if no_output_bias else 1.0) * torch.arange(3), 1)


def scripted(folder: Path, module: nn.Module) -> Path:
    torch.jit.save(torch.jit.script(module), path := folder / f"{type(module).__name__}.pt")
    return path


def test_torchscript_is_given_pixels_as_it_wants_them(tmp_path: Path) -> None:
    file = str(scripted(tmp_path, Plain()))
    images = noise(4, 3, 6, 6)
    mean = images.double().mean((2, 3)).numpy()
    for pixels, want in (("uint8", mean), ("unit", mean / 255), ("signed", mean / 127.5 - 1)):
        seen = networks.TorchScript(file, pixels).open().look(images, None)
        assert list(seen) == ["torchscript/features"]
        np.testing.assert_allclose(seen["torchscript/features"], want, atol=1e-4)
    flat = torch.full((1, 1, 5, 7), 9, dtype=torch.uint8)
    observer = networks.TorchScript(file, size=12).open()
    np.testing.assert_allclose(observer.look(flat, None)["torchscript/features"], [[9, 9, 9]])


def test_nvidias_inception_gives_features_and_probabilities_without_bias(tmp_path: Path) -> None:
    observer = networks.TorchScript(str(scripted(tmp_path, LikeNvidia()))).open()
    images = noise(4, 3, 6, 6)
    seen = observer.look(images, None)
    mean = images.double().mean((2, 3))
    np.testing.assert_allclose(seen["torchscript/features"], mean, atol=1e-4)
    probabilities = torch.from_numpy(seen["torchscript/logits"]).softmax(1)
    np.testing.assert_allclose(probabilities, (mean / 50).softmax(1), atol=1e-5)


def test_inception_is_asked_for_pool_and_unbiased_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Extractor(Plain):
        def __init__(self, name: str, features: list[str], weights: str | None = None) -> None:
            super().__init__()
            assert (features, weights) == (["2048", "logits_unbiased"], None)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            return x.float().mean((2, 3)), x.float().amax((2, 3))

    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(NotSupported, match="pip install torch-fidelity"):
        networks.Inception().open()
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    images = noise(3, 1, 6, 6)
    seen = networks.Inception().open().look(images, None)
    want = images.double().mean((2, 3)).numpy().repeat(3, 1)
    np.testing.assert_allclose(seen["inception/features"], want, atol=1e-4)
    np.testing.assert_array_equal(seen["inception/logits"][:, 0], images.amax((1, 2, 3)).numpy())


def test_what_cannot_be_opened_is_refused(tmp_path: Path, clip_folder: Path, dinov2_folder: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"no network")
    with pytest.raises(MissingFile, match="no TorchScript file"):
        networks.TorchScript(str(tmp_path / "none.pt")).open()
    with pytest.raises(DamagedCheckpoint, match="is no TorchScript file"):
        networks.TorchScript(str(tmp_path / "bad.pt")).open()
    with pytest.raises(BadValue, match="uint8, unit, signed"):
        networks.TorchScript("a.pt", "floats")
    with pytest.raises(NotSupported, match="cannot look at images"):
        networks.TorchScript(str(scripted(tmp_path, LikeNvidia())), "unit").open().look(noise(1, 3, 6, 6), None)
    with pytest.raises(MissingFile, match=r"no network could be opened from '.*nowhere'"):
        networks.DinoV2(str(tmp_path / "nowhere")).open()
    with pytest.raises(NotSupported, match="is a clip, not a DINOv2"):
        networks.DinoV2(str(clip_folder)).open()
    with pytest.raises(MissingFile, match="no model folder"):
        networks.Classifier(str(tmp_path / "nowhere")).open()
    with pytest.raises((MissingFile, DamagedCheckpoint)):
        networks.Clip(str(dinov2_folder)).open()
    with pytest.raises(ShapeMismatch, match="decode latents first"):
        networks.DinoV2(str(dinov2_folder)).open().look(noise(1, 4, 8, 8), None)
