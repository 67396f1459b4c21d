import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from amsc.borrowing import Calls
from amsc.errors import InputError, SettingsError
from amsc.measurement import input_bytes, machine_stamp, measure, peak_memory, time_model, weight_bytes
from amsc.records import Measurement, from_json, to_json

MIB = 2**20


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())


def images() -> Tensor:
    return torch.randn(2, 3, 6, 6)


def test_measurement_holds_every_cost() -> None:
    result = measure(net(), images(), runs=3)
    assert result.parameters == 8 * 3 * 9 + 8 + 16
    assert result.bytes == 4 * (result.parameters + 16) + 8  # running statistics, and one count of batches
    assert result.macs == 2 * 16 * 8 * 27
    assert result.latency_seconds > 0
    assert result.latency_spread_seconds >= 0
    assert result.latency_runs == 3
    assert result.peak_memory_bytes > result.bytes
    assert result.machine == machine_stamp()
    assert from_json(Measurement, to_json(result)) == result


def test_model_comes_back_as_it_was() -> None:
    model = net().train()
    model[3].eval()
    model(images()).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad for p in model.parameters()]
    inputs = images()
    random = torch.get_rng_state()
    measure(model, inputs, runs=2)
    assert [module.training for module in model] == [True, True, True, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())


def test_latency_is_the_median_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(nn.Module):
        """Calls 3 to 5 of 8 are slow: after three for warming up, two of five timed ones."""

        def forward(self, x: Tensor) -> Tensor:
            calls.append(x)
            now[0] += 5.0 if len(calls) in (3, 4, 5) else 1.0
            return x

    calls: list[Tensor] = []
    now = [0.0]
    monkeypatch.setattr("torch.utils.benchmark.timer", lambda: now[0])
    assert time_model(Slow(), images(), runs=5) == (1.0, 4.0)
    assert len(calls) == 8


def test_one_run_has_no_spread() -> None:
    assert time_model(net(), images(), runs=1)[1] == 0


@pytest.mark.parametrize("runs", [0, -3])
def test_no_runs_are_refused(runs: int) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        measure(net(), images(), runs=runs)


def test_wrong_inputs_are_refused() -> None:
    for function in (measure, peak_memory, time_model):
        with pytest.raises(InputError, match="forward failed"):
            function(net(), torch.zeros(2, 4, 6, 6))


def test_weights_are_counted_once() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False).half()
    assert weight_bytes(nn.ModuleList([first, second])) == 64 + 32
    first.register_buffer("again", torch.zeros(3), persistent=False)
    second.weight = first.weight
    assert weight_bytes(nn.ModuleList([first, second])) == 64 + 12


class Steps(nn.Module):
    """Makes tensors of one MiB; `keep` of them live at once, besides the one just made."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for _ in range(6):
            y = x + 1
            kept = [*kept, y][-self.keep :] if self.keep else []
        return y


@pytest.mark.parametrize(("keep", "alive"), [(1, 2), (3, 4), (6, 6)])
def test_peak_is_what_lives_at_once(keep: int, alive: int) -> None:
    x = torch.zeros(MIB // 4)
    assert peak_memory(Steps(keep), x) == (1 + alive) * MIB


def test_views_and_in_place_results_cost_nothing() -> None:
    class Viewing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = (x * 2).view(-1, 2).t()
            return y.relu_()[0]

    assert peak_memory(Viewing(), torch.zeros(MIB // 4)) == 2 * MIB


def test_of_a_view_only_the_view_counts() -> None:
    """One example of a loader's batch; the same tensor twice is one."""
    batch = torch.zeros(16, MIB // 4)
    assert peak_memory(Steps(1), batch[:1]) == 3 * MIB
    assert input_bytes((batch[:1], batch[1:3])) == 3 * MIB
    for given in ((batch[:1],), {"x": batch[:1]}, Calls(batch[:1]), Calls({"x": batch[:1]}, batch[:2])):
        assert peak_memory(Steps(1), given) == 3 * MIB

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x[:0] + y[:0]

    one = batch[:1]
    assert peak_memory(Two(), (one, one)) == input_bytes((one, one)) == MIB


def test_peak_counts_weights_once_and_does_not_drift() -> None:
    model = nn.Linear(256, 256, bias=False)  # 256 KiB
    x = torch.zeros(1, 256)
    assert [peak_memory(model, x) for _ in range(3)] == [256 * 1024 + 2 * 1024] * 3


@pytest.mark.gpu
def test_peak_on_a_gpu_counts_weights_and_activations() -> None:
    x = torch.zeros(MIB, device="cuda")
    unrelated = torch.zeros(64 * MIB, device="cuda")
    assert 12 * MIB <= peak_memory(Steps(1), x) < 64 * MIB
    del unrelated


def test_machine_stamp_names_the_machine_but_not_its_owner() -> None:
    stamp = machine_stamp()
    assert stamp["torch"] == torch.__version__
    assert stamp["threads"] == str(torch.get_num_threads())
    assert all(isinstance(value, str) and value for value in stamp.values())
    text = " ".join(stamp.values())
    hostname = Path("/etc/hostname")
    if hostname.exists() and len(hostname.read_text().strip()) > 3:
        assert hostname.read_text().strip() not in text
    assert str(Path.home()) not in text
