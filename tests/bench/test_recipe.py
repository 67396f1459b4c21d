"""Recipes: what they make of a file, and what they refuse before any work."""

from collections import Counter
from pathlib import Path

import pytest

from amsc import Settings
from amsc.bench import Method, Network, Recipe, read_recipe
from amsc.errors import SettingsError, TargetError

RECIPE = """
[bench]
data = "parquet:images"
budgets = ["macs=60%", "params=30%"]
seeds = [0, 1]
epochs = [0, 2]
dense_epochs = 4
[bench.networks.wide]
model = "resnet20"
weights = "wide.th"
[bench.networks.narrow]
[settings]
keep = ["conv1"]
[methods.default]
[methods.proximal]
walked = 0.25
depth_rule = "share"
[methods."as long"]
control = "dense"
[methods.scratch]
control = "scratch"
like = "default"
"""


def read(folder: Path, text: str) -> Recipe:
    file = folder / "recipe.toml"
    file.write_text(text)
    return read_recipe(file)


def test_a_file_says_all_there_is(tmp_path: Path) -> None:
    recipe = read(tmp_path, RECIPE)
    assert recipe.data == f"parquet:{tmp_path / 'images'}"
    assert recipe.networks == {
        "wide": Network("resnet20", str(tmp_path / "wide.th")),
        "narrow": Network("narrow"),
    }
    assert (recipe.budgets, recipe.seeds, recipe.epochs) == (("macs=60%", "params=30%"), (0, 1), (0, 2))
    assert recipe.methods["proximal"] == Method({"depth_rule": "share"}, walked=0.25)
    assert recipe.settings == Settings(keep=("conv1",), precision="float32"), "all compute alike"


def test_every_method_meets_every_budget_seed_and_number_of_epochs(tmp_path: Path) -> None:
    recipe = read(tmp_path, RECIPE)
    cells = list(recipe.cells())
    assert len(set(cells)) == len(cells)
    counts = Counter(cell.method for cell in cells)
    networks, seeds, budgets = 2, 2, 2
    assert counts["default"] == counts["scratch"] == networks * seeds * budgets * 2
    assert counts["proximal"] == networks * seeds * budgets, "a path cannot be walked in no time"
    assert counts["as long"] == networks * seeds * 2, "the dense network has no budget"
    assert {cell.budget for cell in cells if cell.method == "as long"} == {""}


def test_the_epochs_of_a_cell_are_all_that_it_has(tmp_path: Path) -> None:
    recipe = read(tmp_path, RECIPE)
    for cell in recipe.cells():
        settings = recipe.settings_of(cell)
        assert settings.path_epochs + recipe.tuning_epochs(cell) == cell.epochs
        assert (settings.dense_epochs, settings.finetune_epochs, settings.seed) == (0.0, 0.0, cell.seed)
        assert settings.keep == ("conv1",)
    walked = next(cell for cell in recipe.cells() if cell.method == "proximal")
    assert recipe.settings_of(walked).path_epochs == 0.5
    assert recipe.settings_of(walked).depth_rule == "share"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("budgets =", "budget =", r"\[bench\] has no 'budget'; did you mean budgets\?"),
        ('"macs=60%"', '"macs=160%"', "expected a target above 0 % and below 100 %"),
        ('"macs=60%"', '"free"', "'free' is no cost"),
        ('"macs=60%"', '"drop=1%"', "'drop=1%' is no cost"),
        ("seeds = [0, 1]", "seeds = 3", r"seeds is a list, as in seeds = \[3\]"),
        ("seeds = [0, 1]", 'seeds = ["a"]', "seeds: 'a' is of the wrong type"),
        ("seeds = [0, 1]", "seeds = []", "at least one of: seeds"),
        ("epochs = [0, 2]", "epochs = [-1]", "cannot be negative"),
        ('data = "parquet:images"', "", r"\[bench\] does not say data"),
        ("[methods.default]", "[methods.default]\ndepth_shar = 0.5", "methods.default: .*depth_shar"),
        ("[methods.default]", '[methods.default]\nprices = "cheap"', "methods.default: prices: expected one of"),
        ("walked = 0.25", "walked = 1.0", "walked is a share of the epochs"),
        ("walked = 0.25", "walked = 'a'", "methods.proximal: walked: expected a number, got 'a'"),
        ("dense_epochs = 4", "dense_epochs = true", "dense_epochs: expected a number, got True"),
        ('control = "dense"', 'control = "dens"', r"not 'dens'; did you mean dense\?"),
        (
            'like = "default"',
            'like = "defalt"',
            r"'defalt', which is no method by which amsc cuts; did you mean default\?",
        ),
        ('like = "default"', 'like = "as long"', "'as long', which is no method by which amsc cuts"),
        ('like = "default"', "", "says whose networks"),
        (
            "[methods.default]",
            '[methods.default]\noutsider = "torch-prunin:taylor"',
            "did you mean torch-pruning:taylor",
        ),
        (
            "walked = 0.25",
            'outsider = "torch-pruning:taylor"',
            "an outsider cuts by itself, and depth_rule has no part",
        ),
        ("[methods.default]", '[methods.default]\noutsider = "torch-pruning:taylor"', "to multiply-adds alone, not to"),
        ("[methods.default]", '[methods.default]\nmethod = "criterion"\nregularizer = "growing"', "in a bench walked"),
        ("[settings]", "[setting]", r"a recipe has no 'setting'; did you mean settings\?"),
        ("[settings]", "[settings]\nseed = 'x'", r"\[settings\]: seed"),
        ("[bench.networks.narrow]", "[bench.networks.narrow]\nweight = 1", r"has no 'weight'; did you mean weights\?"),
        ("[bench]", "[bench", "not valid TOML"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in RECIPE
    with pytest.raises((SettingsError, TargetError), match=words) as caught:
        read(tmp_path, RECIPE.replace(old, new, 1))
    assert "recipe.toml" in str(caught.value)


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "benchmarks" / "recipes").glob("*.toml")), ids=lambda file: file.stem
)
def test_the_recipes_of_the_repository_can_be_read(file: Path) -> None:
    recipe = read_recipe(file)
    assert len(recipe.methods) > 8
    assert {method.control for method in recipe.methods.values()} == {"", "dense", "scratch"}
