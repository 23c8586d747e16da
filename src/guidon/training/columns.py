"""Which columns of a data set hold the picture, the class and the caption, and what one row of it means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guidon.errors import DataError, UnknownLabel, nearest
from guidon.training.captions import Captions, Template, template, wordings

IMAGE_NAMES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = ("label", "labels", "class", "cls", "fine_label", "coarse_label", "json.label", "json.class")
CAPTION_NAMES = ("caption", "captions", "text", "txt", "prompt", "json.caption", "json.text", "json.prompt")
TEXT_FILE = "txt"  # the column of text files beside the images, every line of them a caption
NO_COLUMN = "none"
MOST_CLASSES = 100_000  # a column of larger numbers holds something else than classes


@dataclass(frozen=True)
class Item:
    """One row, not yet decoded.

    Args:
        name: what to call it in a message; unique within the data set.
        image: the encoded file as bytes, a path to it, or a uint8 array (H, W) or (H, W, 3); None where it is missing.
        label: what the data say: a class number, a class name, or None.
        captions: what can be said of it, one wording or several; empty where nothing is.
    """

    name: str
    image: Any
    label: int | str | None = None
    captions: Captions = ()


@dataclass(frozen=True)
class Columns:
    """Where a row keeps its picture, class and caption; a dot reaches into a column of records (``json.label``).

    Args:
        image: the column of pictures.
        label: the column of classes, or None.
        caption: the column of captions, or None.
        names: the class names that the data themselves give to their class numbers, or None.
        templates: of captions, over any columns, in place of one column.
    """

    image: str
    label: str | None = None
    caption: str | None = None
    names: tuple[str, ...] | None = None
    templates: tuple[Template, ...] = ()

    @property
    def top(self) -> list[str]:
        """The columns that must be read."""
        used = [self.image, self.label, *self.told]
        return list(dict.fromkeys(c.partition(".")[0] for c in used if c))

    @property
    def told(self) -> list[str]:
        """The columns that captions are made of; none where the data have no captions."""
        return [self.caption] if self.caption else [c for each in self.templates for c in each.columns]

    def item(self, row: Mapping[str, Any], name: str) -> Item:
        """Return what a row holds; its file name, where it has one, is added to ``name``."""
        image = reach(row, self.image)
        path = image.get("path") if isinstance(image, Mapping) else None
        if isinstance(image, Mapping):
            image = image.get("bytes") or path
        label = reach(row, self.label)
        if label is not None and self.names is not None and not isinstance(label, str):
            label = self.names[label] if 0 <= label < len(self.names) else label
        return Item(f"{name} ({Path(path).name})" if path else name, image, label, self.captions(row))

    def captions(self, row: Mapping[str, Any]) -> Captions:
        """Return what a row says of its picture."""
        if self.caption:
            return wordings(reach(row, self.caption), lines=self.caption == TEXT_FILE)
        found = (each.wording(lambda column: reach(row, column)) for each in self.templates)
        return tuple(wording for wording in found if wording is not None)


def reach(row: Mapping[str, Any], column: str | None) -> Any:
    """Return the value of a row under a name whose dots reach into records, or None where there is none."""
    value: Any = row
    for key in column.split(".") if column else ():
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if column else None


def choose(
    features: Mapping[str, Any],
    *,
    image: str | None,
    label: str | None,
    caption: str | None,
    captions: Sequence[str] = (),
) -> Columns:
    """Find the columns, by name where one is given and by guess where not.

    Args:
        features: the feature type of every column, as `datasets` names them.
        image, label, caption: column names, None to guess, "none" (label and caption only) for no such column.
        captions: templates of captions, in place of one column.

    Raises:
        DataError: a named column does not exist, or no column holds pictures.
    """
    flat = dict(features)
    for name, feature in features.items():
        if isinstance(feature, Mapping) and "bytes" not in feature:
            flat |= {f"{name}.{key}": value for key, value in feature.items()}
    shown = [name for name in flat if not name.startswith("__")]

    def named(kind: str, wanted: str | None, usual: Sequence[str]) -> str | None:
        if wanted is None:
            return next((name for name in usual if name in flat), None)
        if wanted == NO_COLUMN:
            return None
        if wanted not in flat:
            raise DataError(
                f"the data have no column {wanted!r}{nearest(wanted, shown)}; their columns are: {', '.join(shown)}."
                f" Set data.{kind}_column to one of them"
            )
        return wanted

    pictures = [name for name in shown if _holds_pictures(flat[name])]
    if image is None:
        image = next((name for name in IMAGE_NAMES if name in pictures), pictures[0] if pictures else None)
    if image is None or named("image", image, ()) is None:
        raise DataError(
            f"the data have no column of images; their columns are: {', '.join(shown) or 'none'}."
            " Set data.image_column to the one that holds encoded image files"
        )
    scalar = [name for name in LABEL_NAMES if _holds_classes(flat.get(name))]
    label = named("label", label, scalar)
    if label is not None and not _holds_classes(flat[label]):
        raise DataError(
            f"column {label!r} does not hold one class number or name per item ({flat[label]}); name another in data.label_column"
        )
    names = _class_names(flat[label]) if label else None
    if captions:
        said = {name: _class_names(flat[name]) for name in shown}
        return Columns(image, label, None, names, tuple(template(text, said) for text in captions))
    return Columns(image, label, named("caption", caption, CAPTION_NAMES), names)


def _class_names(feature: Any) -> tuple[str, ...] | None:
    names = getattr(getattr(feature, "feature", feature), "names", None)  # of a class, or of a list of classes
    return tuple(names) if names else None


def _holds_pictures(feature: Any) -> bool:
    if isinstance(feature, Mapping):  # the struct that an Image feature is stored as, without its metadata
        return "bytes" in feature
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _holds_classes(feature: Any) -> bool:
    return str(getattr(feature, "dtype", None)).startswith(("int", "uint", "string", "large_string", "bool"))


def class_names(given: Sequence[str] | None, columns: Columns, found: Iterable[int | str | None] | None) -> list[str]:
    """Return the classes in the order of their ids.

    Args:
        given: the names in the recipe; they win.
        columns: whose ``names``, if the data have them, come next.
        found: the label of every item; None when they cannot all be seen (streaming).

    Raises:
        DataError: the names cannot be known.
    """
    if given:
        return list(given)
    if columns.names:
        return list(columns.names)
    if found is None:
        raise DataError(
            f"column {columns.label!r} names no classes, and a stream cannot be searched for them beforehand:"
            " list them in data.classes, or set data.label_column to none"
        )
    distinct = set(found) - {None}
    numbers = [label for label in distinct if isinstance(label, int)]
    if numbers and len(numbers) == len(distinct):
        if max(numbers) >= MOST_CLASSES:
            raise DataError(
                f"column {columns.label!r} holds numbers up to {max(numbers)}, which are no classes; name another in"
                " data.label_column, or set it to none"
            )
        return [str(i) for i in range(max(numbers) + 1)]
    return sorted(str(label) for label in distinct)


def class_id(label: int | str | None, classes: Sequence[str]) -> int:
    """Return the id of a label, which is a class number or one of the names; raises `UnknownLabel`."""
    if isinstance(label, str):
        if label in classes:
            return classes.index(label)
        raise UnknownLabel(f"class {label!r} is not among the {len(classes)} classes{nearest(label, classes)}")
    if label is None:
        raise UnknownLabel("it has no label")
    if not 0 <= label < len(classes):
        raise UnknownLabel(f"label {label} is outside the {len(classes)} classes 0..{len(classes) - 1}")
    return int(label)


def class_ids(labels: Sequence[int | str | None], classes: Sequence[str]) -> list[int]:
    """Return the ids of many labels; raises one `UnknownLabel` that tells which labels do not fit, and how many."""
    ids: dict[int | str | None, int] = {}
    strange: dict[int | str | None, str] = {}
    for label in set(labels):
        try:
            ids[label] = class_id(label, classes)
        except UnknownLabel as error:
            strange[label] = str(error)
    if strange:
        counts = Counter(label for label in labels if label in strange)
        label, count = counts.most_common(1)[0]
        others = f" (and {len(strange) - 1} other labels do not fit)" if len(strange) > 1 else ""
        raise UnknownLabel(
            f"{count:,} of {len(labels):,} items, the first of them item {labels.index(label)}: {strange[label]}{others}."
            f" The classes are {', '.join(classes)}; mend data.classes, or set data.label_column to none"
        )
    return [ids[label] for label in labels]
