from __future__ import annotations

import pytest
from pydantic import BaseModel
from training.tiny import tiny_recipe

from guidon.errors import BadRecipe, BadValue
from guidon.training.recipe import Recipe, load_recipe, read_recipe
from guidon.training.run_recipe import differences, flat, seconds

PLAIN = "train: {steps: 5}\n"


@pytest.fixture
def recipe_file(tmp_path):
    def write(text: str):
        path = tmp_path / "my.yaml"
        path.write_text(text)
        return path

    return write


def test_a_recipe_and_changes_on_top_of_it(recipe_file):
    path = recipe_file(
        "data: {source: digits}\nmodel:\n  output: eps\n  architecture: {model_channels: 16}\ntrain: {steps: 5, lr: 1e-3}\n"
    )
    sets = [
        "train.lr=5e-4",
        "model.architecture.channel_mult=[1, 2]",
        "train.objective.weighting=min-snr",
        "train.clip=null",
    ]
    recipe = load_recipe(path, sets)
    assert (recipe.train.lr, recipe.train.steps, recipe.train.clip) == (5e-4, 5, None)
    assert recipe.model.architecture == {"model_channels": 16, "channel_mult": [1, 2]}
    assert (recipe.train.objective.weighting, recipe.train.objective.dropout) == ("min-snr", 0.1)
    assert read_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {steps: 5}\n" + PLAIN, r"my\.yaml: trian: there is no such key \(did you mean 'train'\?\)"),
        ("train: {steps: 5, learning: 1}\n", r"train\.learning: there is no such key.*the keys there are: .*lr"),
        ("train: {steps: 5, warm_up: 1}\n", r"train\.warm_up: .*did you mean 'warmup'"),
        ("train: {steps: 5, objective: {droput: 0.2}}\n", r"train\.objective\.droput: .*did you mean 'dropout'"),
        ("data: {sorce: digits}\n" + PLAIN, r"data\.sorce: .*did you mean 'source'"),
        (
            "model: {architecture: {model_chanels: 8}}\n" + PLAIN,
            r"model\.architecture: model_chanels: there is no such key \(did you mean 'model_channels'\?\)",
        ),
        ("model: {network: unett}\n" + PLAIN, r"model\.network: there is no network 'unett' \(did you mean 'unet'\?\)"),
        (
            "model: {process: cosin}\n" + PLAIN,
            r"model\.process: there is no process 'cosin' \(did you mean 'cosine'\?\)",
        ),
        ("model: {output: noise}\n" + PLAIN, r"model\.output: there is no output 'noise'"),
        ("train: {steps: 5, average: decay(2)}\n", r"train\.average: decay is at least 0 and below 1, got 2"),
        ("train: {steps: 5, power_averages: [0.5]}\n", r"train\.power_averages: the relative length"),
        ("train: {steps: 0}\n", r"train\.steps: input should be greater than or equal to 1, not 0"),
        ("train: {steps: 5, lr: fast}\n", r"train\.lr: input should be a valid number.*not 'fast'"),
        ("train: {budget: soon}\n", r"train\.budget: 'soon' is not a duration"),
        ("train: {lr: 1}\n", r"train: say when training ends"),
        ("train: {steps: 5, batch_size: 10, accumulate: 3}\n", r"train: a batch of 10 does not divide into 3 parts"),
        ("train: {steps: 5, checkpoint_every: 0}\n", r"train\.checkpoint_every: at least 1 step"),
        ("data: {source: digits}\n", r"train: field required"),
        ("- 1\n", r"must hold the sections data, model, train, sample"),
        ("train: {steps: [}\n", r"is not readable YAML"),
        ("1: 2\n" + PLAIN, r"the names of sections are text"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_the_key(recipe_file, text, message):
    with pytest.raises(BadRecipe, match=message):
        load_recipe(recipe_file(text))


def test_keys_of_another_network_are_told_once_with_the_remedy(recipe_file):
    path = recipe_file("model: {architecture: {model_channels: 8, channel_mult: [1]}}\n" + PLAIN)
    with pytest.raises(BadRecipe) as told:
        load_recipe(path, ["model.network=dit"])
    assert str(told.value) == (
        f"{path}: model.architecture: model_channels, channel_mult: of a unet, but the network is a dit; replace the architecture"
        " whole, --set model.architecture='{patch: 2, ...}'; the keys of a dit: patch, width, depth, heads,"
        " mlp_ratio, vector, tokens, token_width"
    )
    whole = load_recipe(path, ["model.network=dit", "model.architecture={patch: 2, width: 32, heads: 2}"])
    assert whole.model.architecture == {"patch": 2, "width": 32, "heads": 2}


def test_keys_that_are_there_are_listed_once_in_a_place(recipe_file):
    with pytest.raises(BadRecipe) as told:
        load_recipe(recipe_file("train: {steps: 5, learning: 1, warm_up: 1}\ndata: {sorce: digits}\n"))
    lines = str(told.value).splitlines()
    assert ["the keys there are" in line for line in lines] == [True, True, False]


def test_what_does_not_fit_together_is_named_without_a_place(recipe_file):
    with pytest.raises(BadRecipe, match=r"my\.yaml: a learned variance needs"):
        load_recipe(recipe_file("model: {learned_variance: true}\n" + PLAIN))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.lr", "write section.key=value"),
        ("=3", "write section.key=value"),
        ("train..lr=3", "write section.key=value"),
        ("train.lr=[", "cannot read the value"),
        ("train.steps.more=3", "steps is a value, not a section"),
        ("train.lrr=3", r"train\.lrr: there is no such key \(did you mean 'lr'\?\)"),
    ],
)
def test_a_setting_that_cannot_be_applied_is_refused(recipe_file, change, message):
    with pytest.raises(BadRecipe, match=message):
        load_recipe(recipe_file(PLAIN), [change])


def test_a_missing_file_is_a_bad_recipe(tmp_path):
    with pytest.raises(BadRecipe, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.yaml")


def test_channels_and_classes_come_from_the_data():
    config = tiny_recipe().model_config_for((3, 8, 8), ["a", "b"])
    assert (config.architecture["in_channels"], config.architecture["out_channels"], config.classes) == (
        3,
        3,
        ("a", "b"),
    )
    closed = tiny_recipe({"vector": None})
    assert closed.model_config_for((3, 8, 8), ["a", "b"]).classes is None
    with pytest.raises(BadRecipe, match=r"no labels; name their column"):
        tiny_recipe().model_config_for((3, 8, 8), None)
    with pytest.raises(BadRecipe, match=r"in_channels is 3, but the images have 1"):
        tiny_recipe({"in_channels": 3}).model_config_for((1, 8, 8), ["a", "b"])


def test_differences_name_what_matters_only():
    stored = flat(tiny_recipe())
    assert differences(stored, tiny_recipe(steps=99, budget="1m", sample_every=3, checkpoint_every=7)) == []
    assert differences(stored, tiny_recipe(lr=0.5, objective={"gamma": 2})) == ["train.lr", "train.objective.gamma"]
    assert differences(stored, tiny_recipe({"heads": 2})) == ["model.architecture.heads"]
    older = {name: value for name, value in stored.items() if name != "train.objective.inner_weight"}
    assert differences(older, tiny_recipe()) == []
    assert differences(older, tiny_recipe(objective={"inner_weight": 1.0})) == ["train.objective.inner_weight"]


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("0.5h", 1800), ("1m30s", 90)]
)
def test_durations(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "20", "m", "-5m", "5 parsecs", "0s", "1.2.3m"])
def test_what_is_not_a_duration_is_refused(text):
    with pytest.raises(BadValue, match="not a duration"):
        seconds(text)


def test_every_field_says_what_it_is():
    def walk(model: type[BaseModel]):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(field.annotation)

    walk(Recipe)
