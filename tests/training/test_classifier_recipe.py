"""What a classifier's recipe takes, and what it refuses."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from training.test_recipe import recipe_file  # noqa: F401
from training.tiny import tiny_recipe
from training.tiny_classifier import tiny_classifier_recipe

from guidon.app.recipes import find_recipe
from guidon.errors import BadRecipe, MissingFile
from guidon.training.classifier_recipe import ClassifierRecipe
from guidon.training.run_recipe import differences, flat

DIGITS = tuple("0123456789")
START = "kind: classifier\ntrain: {steps: 5}\n"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A model with classes and one without, of 8x8 grey images under the process flow."""
    folder = tmp_path_factory.mktemp("bases")
    for name, vector in (("conditional", "embedding"), ("unconditional", None)):
        recipe = tiny_recipe({"vector": vector})
        recipe = recipe.model_copy(
            update={"model": recipe.model.model_copy(update={"process": "flow", "output": "velocity"})}
        )
        recipe.build((1, 8, 8), DIGITS).save_pretrained(folder / name)
    tiny_classifier_recipe().build((1, 8, 8), DIGITS).save_pretrained(folder / "classifier")
    return folder


@pytest.mark.parametrize("name", ["conditional", "unconditional"])
def test_process_and_shape_come_from_the_base_and_classes_from_the_data(bases, name):
    recipe = tiny_classifier_recipe({"base": str(bases / name)})
    classifier = recipe.build((1, 8, 8), DIGITS)
    assert (classifier.config.process, classifier.shape, classifier.classes) == ("flow", (1, 8, 8), DIGITS)
    architecture = classifier.config.architecture
    assert [architecture[key] for key in ("in_channels", "size", "out_channels")] == [1, 8, 10]


def test_what_does_not_fit_the_base_is_refused_with_the_remedy(bases):
    recipe = tiny_classifier_recipe({"base": str(bases / "conditional")})
    with pytest.raises(BadRecipe, match=r"makes images \(1, 8, 8\), .*set data\.size to 8 and data\.channels to 1"):
        recipe.build((3, 16, 16), DIGITS)
    with pytest.raises(BadRecipe, match=r"has the classes 10 \(0, .*the data have 2 \(a, b\); list .*data\.classes"):
        recipe.build((1, 8, 8), ["a", "b"])
    with pytest.raises(BadRecipe, match=r"has the classes"):  # the ids are what counts
        recipe.build((1, 8, 8), DIGITS[::-1])
    free = tiny_classifier_recipe({"base": str(bases / "unconditional")})
    assert free.build((1, 8, 8), ["a", "b"]).classes == ("a", "b")


def test_what_is_no_base_is_refused(bases, tmp_path):
    with pytest.raises(BadRecipe, match=r"is a classifier; give the model that is to be guided"):
        tiny_classifier_recipe({"base": str(bases / "classifier")}).build((1, 8, 8), DIGITS)
    with pytest.raises(MissingFile, match="no model folder"):
        tiny_classifier_recipe({"base": str(tmp_path / "nothing")}).build((1, 8, 8), DIGITS)


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((1, 8, 8), None, r"no labels; name their column in data\.label_column"),
        ((1, 8, 8), ["a"], r"at least two classes, and these have one"),
        ((1, 8, 16), ["a", "b"], r"square images, these are 8x16; set data\.size"),
        ((1, 9, 9), ["a", "b"], r"model\.architecture: images of 9x9 do not divide by 2"),
    ],
)
def test_data_that_a_classifier_cannot_learn_are_refused(shape, classes, message):
    with pytest.raises(BadRecipe, match=message):
        tiny_classifier_recipe().build(shape, classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (START + "model: {}\n", r"model: give either the base, the model that is to be guided, or a process"),
        (START + "model: {base: a/b, process: flow}\n", r"base a/b decides .* drop flow: --set model\.process=null"),
        (START + "model: {process: flwo}\n", r"model\.process: there is no process 'flwo' \(did you mean 'flow'\?\)"),
        (START + "model: {process: flow, architecture: {size: 8}}\n", r"model\.architecture: size: the data decide"),
        (
            START + "model: {process: flow, architecture: {pol: average}}\n",
            r"model\.architecture: pol: there is no such key \(did you mean 'pool'\?\)",
        ),
        (START + "model: {process: flow}\ndata: {hold_out: 0}\n", r"data\.hold_out: input should be greater than 0"),
        (
            START + "model: {process: flow}\ndata: {crop: -1}\n",
            r"data\.crop: input should be greater than or equal to 0",
        ),
        (START + "model: {process: flow}\nsample: {}\n", r"sample: there is no such key"),
        (
            "kind: classifier\nmodel: {process: flow}\ntrain: {steps: 5, sample_every: 3}\n",
            r"train\.sample_every: there is no such key",
        ),
        ("model: {process: flow}\ntrain: {steps: 5}\n", r"is the recipe of a model; give it to `guidon train`"),
        ("kind: classifer\nmodel: {process: flow}\ntrain: {steps: 5}\n", r"kind: input should be 'classifier'"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_the_key(recipe_file, text, message):  # noqa: F811
    with pytest.raises(BadRecipe, match=message):
        ClassifierRecipe.load(recipe_file(text))


def test_decay_is_adms_unless_said_otherwise_and_what_a_run_shows_may_change():
    recipe = tiny_classifier_recipe()
    assert recipe.train.weight_decay == 0.05
    assert tiny_recipe().train.weight_decay == 0
    stored = flat(recipe)
    assert differences(stored, tiny_classifier_recipe(steps=99, log_every=3, checkpoint_every=7)) == []
    older = {name: value for name, value in stored.items() if name not in ("data.crop", "data.hold_out")}
    assert differences(older, tiny_classifier_recipe(data={"hold_out": 0.05})) == []
    assert differences(older, tiny_classifier_recipe(data={"crop": 2})) == ["data.crop", "data.hold_out"]


@pytest.mark.parametrize("name", ["digits-classifier", "cifar10-classifier-cpu"])
def test_the_recipes_that_come_with_guidon_fit_the_model_they_are_to_guide(name):
    recipe = ClassifierRecipe.load(find_recipe(name))
    shape = (1, 8, 8) if name.startswith("digits") else (3, 32, 32)
    other = {"digits-classifier": "digits", "cifar10-classifier-cpu": "cifar10-cpu"}[name]
    assert recipe.build(shape, DIGITS).process == tiny_base(other)


def tiny_base(name: str):
    from guidon.registry import parse
    from guidon.training.recipe import load_recipe

    return parse("process", load_recipe(find_recipe(name)).model.process)


def test_every_field_says_what_it_is():
    def walk(model: type[BaseModel]):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(field.annotation)

    walk(ClassifierRecipe)
