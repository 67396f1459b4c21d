"""A whole bench: every cell is made once and by the same rules, and what fails does not stop the others."""

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc import Settings
from amsc.bench import Method, Network, Recipe, bench, making
from amsc.bench.making import Lab
from amsc.bench.outsiders import cut_outside
from amsc.bench.page import render_bench
from amsc.bench.store import Store, said_settings
from amsc.bench.table import entries, table_text
from amsc.cli import main
from amsc.errors import DataError, RunFolderError, TargetError
from amsc.measurement import count_macs
from amsc.surgery import load
from amsc.training import evaluate
from training.small import TASK, small_data, small_net

DATA = small_data()
METHODS = {
    "L1-like": Method({"depth_share": 0.0, "prices": "fisher"}),
    "no distillation": Method({"depth_share": 0.0, "prices": "fisher", "distillation": 0.0}),
    "nothing may go": Method({"keep": ("*",)}),
    "as long": Method(control="dense"),
    "from scratch": Method(control="scratch", like="L1-like"),
}
RECIPE = Recipe(
    "digits",
    {"small": Network("small")},
    METHODS,
    budgets=("macs=70%",),
    seeds=(0, 1),
    epochs=(0.0, 0.5),
    dense_epochs=2,
    settings=Settings(path_points=1, reconstruction=32, round_to=1),
)


def run(folder: Path, recipe: Recipe = RECIPE, **options: Any) -> Store:
    return bench(recipe, {"small": small_net()}, DATA, None, folder, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "out"


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return run(folder)


def test_every_cell_is_there_and_has_what_was_measured(store: Store) -> None:
    assert [one.cell for one in store.outcomes] == list(RECIPE.cells())
    for one in (one for one in store.outcomes if not one.failed):
        assert one.score == float(store.scores(one.cell).mean())
        assert one.dense_score == store.outcomes[0].dense_score
        assert set(one.time_shares) == {"1", "64"}
        assert one.macs_share == 1 if one.cell.method == "as long" else one.macs_share <= 0.7  # type: ignore[operator]


def test_what_fails_is_a_result_with_its_reason(store: Store, folder: Path) -> None:
    failed = [one for one in store.outcomes if one.failed]
    assert {one.cell.method for one in failed} == {"nothing may go"}
    assert len(failed) == 4
    assert all(one.failed.startswith("TargetError: ") and one.score is None for one in failed)
    assert len(list((folder / "cells").glob("*.txt"))) == 4, "the tracebacks"


def test_what_is_there_is_not_made_again(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(Lab, "made", lambda self, cell: made.append(cell.method) or 1 / 0)
    again = run(folder)
    assert again.outcomes == store.outcomes
    assert made == []
    run(folder, retry=True)
    assert Counter(made) == {"nothing may go": 4}


def test_a_bench_that_was_stopped_goes_on(store: Store, tmp_path: Path) -> None:
    class Stops:
        def begin(self, cell: Any, number: int, count: int) -> None:
            if number == 4:
                raise KeyboardInterrupt

        def end(self, outcome: Any) -> None:
            pass

    few = dataclasses.replace(
        RECIPE, methods={"L1-like": METHODS["L1-like"], "as long": METHODS["as long"]}, seeds=(0,)
    )
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", few, hears=Stops())
    assert len(list((tmp_path / "out" / "cells").glob("*.json"))) == 3
    whole = run(tmp_path / "out", few)
    wanted = {one.cell: store.scores(one.cell) for one in store.outcomes if not one.failed}
    assert len(whole.outcomes) == 4
    for one in whole.outcomes:
        assert torch.equal(whole.scores(one.cell), wanted[one.cell]), "the same bits, whatever was made before"


def test_cells_that_differ_in_fine_tuning_alone_share_their_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[Any] = []
    original = making.compress
    monkeypatch.setattr(
        making, "compress", lambda *args, **more: (cuts.append(more["out"]), original(*args, **more))[1]
    )
    some = {name: METHODS[name] for name in ("L1-like", "no distillation", "from scratch")}
    found = run(tmp_path / "out", dataclasses.replace(RECIPE, methods=some, seeds=(0,)))
    assert len(set(cuts)) == 1
    scores = {one.cell: found.scores(one.cell) for one in found.outcomes}
    untrained, trained = (
        [score for cell, score in scores.items() if cell.epochs == epochs and cell.method != "from scratch"]
        for epochs in (0.0, 0.5)
    )
    assert torch.equal(*untrained)
    assert not torch.equal(*trained), "one of them learns from the dense network"


def test_controls_have_no_cut_of_their_own(store: Store, folder: Path) -> None:
    by_method = {one.cell.method: one for one in store.outcomes if one.cell.seed == 1 and one.cell.epochs == 0}
    dense = load(next((folder / "dense").iterdir()), small_net)
    assert torch.equal(
        store.scores(by_method["as long"].cell), evaluate(dense, DATA, "test", TASK).per_example.double()
    )
    scratch, like = by_method["from scratch"], by_method["L1-like"]
    assert scratch.macs_share == like.macs_share
    assert not torch.equal(store.scores(scratch.cell), store.scores(like.cell)), "it has other weights"
    assert scratch.seconds["train"] > 0, "it had the dense network's epochs"


def test_a_path_is_walked_for_its_share_of_the_epochs(tmp_path: Path) -> None:
    proximal = Method({"depth_rule": "share"}, walked=0.5)
    found = run(tmp_path / "out", dataclasses.replace(RECIPE, methods={"proximal": proximal}, seeds=(0,)))
    (one,) = found.outcomes
    assert (one.cell.epochs, one.failed) == (0.5, "")
    record = json.loads(next((tmp_path / "out" / "cuts").glob("*/record.json")).read_text())
    assert (record["settings"]["path_epochs"], record["settings"]["finetune_epochs"]) == (0.25, 0.0)


def test_a_regularizer_has_its_share_of_the_epochs(tmp_path: Path) -> None:
    growing = Method({"method": "criterion", "regularizer": "growing"}, walked=0.5)
    found = run(tmp_path / "out", dataclasses.replace(RECIPE, methods={"growing": growing}, seeds=(0,)))
    (one,) = found.outcomes
    assert (one.cell.epochs, one.failed) == (0.5, "")
    record = json.loads(next((tmp_path / "out" / "cuts").glob("*/record.json")).read_text())
    assert [point["epochs"] for point in record["path"]][-1] == 0.25


def test_cells_that_are_older_than_a_setting_hold() -> None:
    assert not {"regularizer", "regularization"} & set(said_settings(Settings()))
    chosen = said_settings(Settings(method="criterion", regularizer="growing", path_epochs=1.0, regularization=0.1))
    assert (chosen["regularizer"], chosen["regularization"]) == ("growing", 0.1)
    assert chosen.keys() - said_settings(Settings()).keys() == {"regularizer", "regularization"}


def test_an_outsider_cuts_and_all_else_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    names = ("torch-pruning:magnitude", "torch-pruning:taylor")
    methods = {"first": METHODS["L1-like"], **{name: Method(outsider=name) for name in names}}
    found = run(tmp_path / "out", dataclasses.replace(RECIPE, methods=methods, seeds=(0,)))
    assert [one.failed for one in found.outcomes] == [""] * 6
    for one in (one for one in found.outcomes if one.cell.method in names):
        assert 0.6 < one.macs_share <= 0.7  # type: ignore[operator]
        assert (one.removed_blocks, one.dense_score) == ((), found.outcomes[0].dense_score)
    untrained, trained = (
        {one.cell.method: found.scores(one.cell) for one in found.outcomes if one.cell.epochs == epochs}
        for epochs in (0.0, 0.5)
    )
    assert not torch.equal(untrained[names[0]], untrained[names[1]]), "each has its own importance"
    assert all(not torch.equal(untrained[name], trained[name]) for name in names)


def test_an_outsider_leaves_alone_what_amsc_would() -> None:
    pytest.importorskip("torch_pruning")
    net = small_net()
    cut = cut_outside("torch-pruning:magnitude", net, "macs=70%", DATA, TASK, Settings(keep=("layer1.*",)))
    before, after = ({name: p.shape for name, p in one.named_parameters()} for one in (net, cut))
    changed = {name for name, shape in before.items() if after[name] != shape}
    assert changed
    assert all(name.startswith(("layer2", "layer3")) for name in changed)
    assert all(after[name][0] == before[name][0] for name in before if name.endswith("conv2.weight")), "the stream"
    with pytest.raises(TargetError, match=r"macs=5% cannot be reached by torch-pruning:magnitude: it stops at"):
        cut_outside("torch-pruning:magnitude", net, "macs=5%", DATA, TASK, Settings())
    with pytest.raises(TargetError, match="makes channels that may go"):
        cut_outside("torch-pruning:magnitude", net, "macs=50%", DATA, TASK, Settings(keep=("*",)))


def test_an_outsider_that_is_not_there_fails_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    recipe = dataclasses.replace(
        RECIPE, methods={"theirs": Method(outsider="torch-pruning:taylor")}, seeds=(0,), epochs=(0.0,)
    )
    (one,) = run(tmp_path / "out", recipe).outcomes
    assert "pip install 'amsc[rivals]'" in one.failed


def test_networks_with_weights_of_no_known_beginning_have_no_scratch(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.scale = nn.Parameter(torch.ones(1))
            self.net = small_net()

        def forward(self, x: Tensor) -> Any:
            return self.net(x * self.scale)

    some = {name: METHODS[name] for name in ("L1-like", "from scratch")}
    recipe = dataclasses.replace(RECIPE, methods=some, seeds=(0,), epochs=(0.0,), dense_epochs=0)
    found = bench(recipe, {"small": Scaled()}, DATA, TASK, tmp_path / "out")
    assert [bool(one.failed) for one in found.outcomes] == [False, True]
    assert "the network (Scaled) has no reset_parameters for scale" in found.outcomes[1].failed


def test_the_user_s_network_stays_as_it_is(tmp_path: Path) -> None:
    net = small_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    recipe = dataclasses.replace(RECIPE, methods={"L1-like": METHODS["L1-like"]}, seeds=(0,))
    bench(recipe, {"small": net}, DATA, None, tmp_path / "out")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
    assert count_macs(net, DATA.example_inputs(1)) > 0
    with pytest.raises(DataError, match="were not given: small"):
        bench(recipe, {"other": net}, DATA, None, tmp_path / "other")


def test_the_table_compares_on_the_same_examples(store: Store) -> None:
    found = {(one.method, one.epochs): one for one in entries(store, RECIPE)}
    first, other = found["L1-like", 0.5], found["no distillation", 0.5]
    assert (first.behind, first.seeds) == (None, 2)
    gaps = torch.stack(
        [
            store.scores(next(c for c in RECIPE.cells() if (c.method, c.seed, c.epochs) == ("L1-like", seed, 0.5)))
            - store.scores(next(c for c in RECIPE.cells() if (c.method, c.seed, c.epochs) == (other.method, seed, 0.5)))
            for seed in (0, 1)
        ]
    ).mean(0)
    assert other.behind == pytest.approx(float(gaps.mean()))
    assert other.error == pytest.approx(float(gaps.std()) / len(gaps) ** 0.5)
    assert first.score - other.score == pytest.approx(other.behind)  # type: ignore[operator]
    text = table_text(list(found.values()), RECIPE, is_share=True)
    row = next(line for line in text.splitlines() if line.startswith("| no distillation"))
    assert f"{100 * found['no distillation', 0.0].score:.1f}" in row  # type: ignore[operator]
    assert text.count("What failed:") == 1
    assert text.count("- small, nothing may go, macs=70%") == 4
    page = render_bench(list(found.values()), RECIPE, score="accuracy")
    assert row.split("|")[2].strip() in page


def test_names_cannot_become_markup(store: Store) -> None:
    found = [dataclasses.replace(one, method="<script>alert(1)</script>") for one in entries(store, RECIPE)]
    assert "<script>alert(1)" not in render_bench(found, RECIPE, score="accuracy")


def test_cells_of_something_else_are_refused_or_kept_apart(store: Store, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RunFolderError, match=r"made by another recipe: the .* of small, L1-like, macs=70%, seed 0, 0 epochs are"
    ):
        run(folder, dataclasses.replace(RECIPE, settings=dataclasses.replace(RECIPE.settings, reconstruction=64)))
    with pytest.raises(RunFolderError, match="made by another recipe"):
        bench(RECIPE, {"small": small_net(1)}, DATA, None, folder)
    for file in (folder / "cells").iterdir():
        (tmp_path / "cells").mkdir(exist_ok=True)
        (tmp_path / "cells" / file.name).write_bytes(file.read_bytes())
    older = next((tmp_path / "cells").glob("small-L1-like*seed1-epochs0-*.json"))
    plain = json.loads(older.read_text())
    older.write_text(json.dumps(plain | {"stamp": plain["stamp"] | {"torch": "2.6.0"}}))
    with pytest.raises(RunFolderError, match=r"holds cells of torch 2.6.0 \(here: .*--mix"):
        run(tmp_path)
    mixed = run(tmp_path, mixed=True)
    rows = [(one.method, one.seeds, one.stamp) for one in entries(mixed, RECIPE) if one.method == "L1-like"]
    assert ("L1-like", 1, "torch 2.6.0") in rows
    assert len(rows) == 3
    older.write_text("{}")
    with pytest.raises(RunFolderError, match="is no cell of a bench"):
        run(tmp_path)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[bench]\ndata = "digits"\nnetworks = ["digits_resnet"]\nbudgets = ["macs=70%"]\n'
        "[settings]\nlimit = 64\nreconstruction = 32\npath_points = 1\ndepth_share = 0.0\n[methods.width]\n"
    )
    out = tmp_path / "out"
    assert main(["bench", str(recipe), "--out", str(out), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert (entry["method"], entry["seeds"]) == ("width", 1)
    assert entry["macs_share"] <= 0.7
    assert "| width |" in (out / "table.md").read_text()
    assert "group-0" in (out / "bench.html").read_text()
    recipe.write_text(recipe.read_text().replace("[methods.width]", "[methods.width]\nprises = 1"))
    assert main(["bench", str(recipe), "--out", str(out)]) == 2
    assert "methods.width" in capsys.readouterr().err
