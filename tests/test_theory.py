"""The Monte Carlo of the theorem: a stack of networks is stepped as amsc steps each of them alone, structures are
judged rightly, and a grid goes on where it was stopped."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from amsc import Penalty, ProximalStep
from amsc.errors import SettingsError

ROOT = Path(__file__).parent.parent
TINY = ["--seeds", "0", "--replicates", "2", "--steps", "150", "20", "4", "3"]


@pytest.fixture
def theory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a module of the benchmark by its name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.theory.{name}")


@pytest.fixture
def drawn(theory: Any) -> Any:
    """Three students with their examples, and the structure of one."""
    networks, teachers = theory("networks"), theory("teachers")
    generator = torch.Generator().manual_seed(0)
    sample = teachers.sample_of(teachers.drawn_teachers(3, generator), 40, generator)
    return networks.drawn_stack(teachers.STUDENT, 3, generator), sample, networks.structure_of(teachers.STUDENT)


@pytest.mark.parametrize("family", ["amsc", "ssl", "gl", "rw"])
def test_a_stack_is_stepped_as_amsc_steps_one_network(theory: Any, drawn: Any, family: str) -> None:
    networks, fitting = theory("networks"), theory("fitting")
    stack, sample, structure = drawn
    alone = networks.ResidualNet(stack.shape)
    alone.load_state_dict(stack.state_of(1))
    penalty = Penalty(structure, alone, weights=family)
    plan, depth, width = fitting.Plan(30, batch=40), 0.01, 0.015

    factors = torch.tensor([5.0, 1.0, 0.0])  # the neighbours are penalised otherwise
    stacked = theory("stacked_penalty").StackedPenalty(
        stack, structure, weights=("rw", family, "amsc"), reference=stack.state(), depth=factors, width=factors
    )
    fitting.train(stack, sample, plan, stacked, (depth, width))

    sgd = torch.optim.SGD(alone.parameters(), plan.rate, plan.momentum, weight_decay=plan.weight_decay)
    step = ProximalStep(sgd, penalty, depth_strength=depth, width_strength=width)
    for number in range(plan.steps):
        sgd.param_groups[0]["lr"] = plan.rate_at(number)
        step.zero_grad()
        torch.nn.functional.mse_loss(alone(sample.x[1].mT), sample.y[1].mT).backward()
        step.step()
    assert 0 < int(penalty.zero_channels().sum()) < len(penalty.channels), "some are zero, some are not"
    for name, expected in alone.state_dict().items():
        torch.testing.assert_close(stack.state_of(1)[name], expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(stack.state_of(1)[name] == 0, expected == 0)


def test_what_is_gone_has_no_part_in_the_weights(theory: Any, drawn: Any) -> None:
    stack, _, structure = drawn
    reference = stack.state()
    with torch.no_grad():
        for parameter in stack.blocks[1].parameters():
            parameter.chunk(3)[2].zero_()
    penalty = theory("stacked_penalty").StackedPenalty(stack, structure, weights=("amsc",) * 3, reference=reference)
    whole, without = penalty.block_weights.view(3, 4)[[0, 2]]
    assert float(whole.mean()) == pytest.approx(1)
    assert without[1] == 0
    assert float(without[[0, 2, 3]].mean()) == pytest.approx(1)


def test_cut_units_stay_gone_without_a_penalty(theory: Any, drawn: Any) -> None:
    estimators, fitting = theory("estimators"), theory("fitting")
    stack, sample, _ = drawn
    with torch.no_grad():
        stack.blocks[0].up.weight.view(3, 5, 4)[1, 2] = 0
        stack.blocks[3].up.weight.view(3, 3, 4)[2] = 0
    estimators.cut(stack)
    fitting.train(stack, sample, fitting.Plan(5))
    assert estimators.live_units(stack).tolist() == [[5, 3, 5, 3], [4, 3, 5, 3], [5, 3, 5, 0]]


def test_a_student_that_holds_its_teacher_computes_what_it_does(theory: Any, drawn: Any) -> None:
    networks, teachers, stack = theory("networks"), theory("teachers"), drawn[0]
    masters = teachers.drawn_teachers(3, torch.Generator().manual_seed(1))
    nothing = {name: torch.zeros_like(tensor) for name, tensor in stack.state().items()}
    student = networks.Stack(teachers.STUDENT, theory("arms").embedded(masters, nothing), 3)
    x = torch.randn(3, 4, 7)
    torch.testing.assert_close(student(x), masters(x))
    assert theory("estimators").live_units(student).tolist() == [[2, 0, 2, 0]] * 3


def test_structures_are_judged(theory: Any) -> None:
    rules = theory("rules")
    units = torch.tensor([[2, 0, 2, 0], [0, 2, 0, 2], [2, 2, 0, 0], [3, 0, 2, 0], [0, 0, 4, 0], [2, 2, 2, 0], [0] * 4])
    assert rules.has_depth(units).tolist() == [True, True, True, True, False, False, False]
    assert rules.has_width(units).tolist() == [True, True, True, False, False, False, False]


def test_parallel_units_are_one(theory: Any) -> None:
    networks = theory("networks")
    stack = networks.drawn_stack(networks.Shape(2, (4, 2)), 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        stack.blocks[0].up.weight.copy_(torch.tensor([[1.0, 0], [-2, 0.01], [0, 1], [0, 0]] * 2))
        stack.blocks[0].up.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 2, 0, 0]))
        stack.blocks[1].up.weight.copy_(torch.tensor([[0.0, 0], [0, 0], [1, 1], [1, 1]]))
        stack.blocks[1].up.bias.fill_(1)
    assert theory("estimators").live_units(stack).tolist() == [[3, 0], [3, 2]]
    assert theory("rules").merged_units(stack).tolist() == [[2, 0], [3, 1]]


@pytest.mark.parametrize(("hits", "count"), [(0, 50), (1, 50), (31, 50), (50, 50), (7, 7)])
def test_intervals_are_those_of_scipy(theory: Any, hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert theory("rules").wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def points_of(
    theory: Any, units: list[list[int]], settled: list[Tensor], shrunk: list[Tensor], fit: list[float]
) -> Any:
    make = theory("estimators").Point
    parts = zip(units, settled, shrunk, fit, strict=True)
    return [make(0.0, {}, torch.tensor([u]), h[None], s[None], torch.tensor([f])) for u, s, h, f in parts]


def test_each_rule_takes_what_it_looks_at(theory: Any) -> None:
    noise = torch.tensor([1.0, -1.0] * 20)
    points = points_of(
        theory,
        [[5, 3, 5, 3], [5, 0, 5, 0], [0, 0, 5, 0]],
        settled=[1 + 0 * noise, 1.01 + 0.1 * noise, 2 + 0 * noise],  # the second is as good as the first
        shrunk=[1 + 0 * noise, 3 + 0 * noise, 0.5 + 0 * noise],
        fit=[1.0, 1.001, 2.0],
    )
    taken = {
        rule: theory("rules").chosen(points, rule, by_depth=True, examples=160)[0] for rule in theory("rules").RULES
    }
    assert taken == {"one-standard-error": 1, "minimum": 0, "minimum, shrunk": 2, "bic": 1}


def test_a_grid_goes_on_where_it_was_stopped(theory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, out = theory("__main__"), tmp_path / "theory.json"
    usual, done = main.run, list[str]()

    def once(cell: Any, *others: Any) -> dict[str, Any]:
        if done:
            raise KeyboardInterrupt
        done.append(cell.name)
        found: dict[str, Any] = usual(cell, *others)
        return found

    monkeypatch.setattr(main, "run", once)
    with pytest.raises(KeyboardInterrupt):
        main.main(["--sizes", "30", "40", *TINY, "--out", str(out)])
    first = json.loads(out.read_text())
    assert list(first["cells"]) == done == ["n 30 seed 0"]

    monkeypatch.setattr(main, "run", usual)
    main.main(["--sizes", "30", "40", *TINY, "--out", str(out)])
    both = json.loads(out.read_text())
    assert both["cells"]["n 30 seed 0"] == first["cells"]["n 30 seed 0"], "it is not done again"
    assert list(both["cells"]) == ["n 30 seed 0", "n 40 seed 0"]
    (deep, count), _, (right, of), (small, _) = theory("page").shares(both)["amsc"][40]
    assert 0 <= right <= small <= deep <= count == of == 2
    with pytest.raises(SettingsError, match="another setup"):
        main.main(["--sizes", "30", "--replicates", "3", "--out", str(out)])


def test_tables_say_how_many_of_how_many(theory: Any) -> None:
    page = theory("page")
    cells = {"a": {"n": 9, "arms": {"amsc": [[2, 0, 2, 0], [3, 0, 2, 0], [2, 2, 2, 0], [0, 0, 1, 3]]}}}
    depth, width, both, four = page.table({"cells": cells}).split("\n\n")[1::2]
    assert depth.splitlines()[0] == "| arm | n = 9 (4) |"
    assert "| amsc | 0.75 (0.30-0.95) |" in depth
    assert "| amsc | 0.33 (0.06-0.79) |" in width
    assert "| amsc | 0.25 (0.05-0.70) |" in both
    assert "| amsc | 0.50 (0.15-0.85) |" in four
    text = page.written("a\n<!-- b -->\nold\n<!-- end -->\nc", "b", "new")
    assert text == "a\n<!-- b -->\nnew\n<!-- end -->\nc"


def test_the_assumption_is_measured(theory: Any, tmp_path: Path) -> None:
    out = tmp_path / "assumption.json"
    theory("assumption").main(["--seeds", "0", "1", "--steps", "2", "2", "150", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    (first, *_), last = rows, rows[-1]
    assert (first["depth"], first["width"], last["depth"], last["width"]) == (2, 2, 5, 4)
    assert min(last["q_d"]) > max(first["q_d"]) > 0, "as yet untrained: twice as many blocks of twice the width"
    assert first["live_units"] == [4, 4]
