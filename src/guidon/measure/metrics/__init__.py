"""What can be measured of a set of images, one file an idea; importing this registers them all."""

from guidon.measure.metrics.accuracy import Accuracy
from guidon.measure.metrics.adhered import Adhered, Shapes
from guidon.measure.metrics.clip_score import ClipScore
from guidon.measure.metrics.diversity import Diversity
from guidon.measure.metrics.frechet import Frechet
from guidon.measure.metrics.inception_score import InceptionScore
from guidon.measure.metrics.kernel import Kernel
from guidon.measure.metrics.memorised import Memorised, nearest
from guidon.measure.metrics.pixel import Clipping, Contrast, Pixels, Saturation
from guidon.measure.metrics.prdc import Coverage, Density, Precision, Recall

__all__ = [
    "Accuracy",
    "Adhered",
    "ClipScore",
    "Clipping",
    "Contrast",
    "Coverage",
    "Density",
    "Diversity",
    "Frechet",
    "InceptionScore",
    "Kernel",
    "Memorised",
    "Pixels",
    "Precision",
    "Recall",
    "Saturation",
    "Shapes",
    "nearest",
]
