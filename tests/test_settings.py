"""Settings: what is written is read back, what is impossible is refused in words, a typo is answered."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amsc.errors import RunFolderError, SettingsError
from amsc.models import open_model
from amsc.settings import EFFORTS, RunSettings, Settings, read_settings, write_settings
from amsc.structure import Rounding, trace


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("path_epochs", -1.0, "0 or more"),
        ("dense_epochs", float("inf"), "finite"),
        ("finetune_epochs", float("nan"), "finite"),
        ("path_learning_rate", 0.0, "more than 0"),
        ("depth_share", 1.5, "at most 1"),
        ("depth_share", -0.1, "0 or more"),
        ("momentum", 1.0, "less than 1"),
        ("batch_size", 0, "1 or more"),
        ("path_points", 0, "1 or more"),
        ("seed", -1, "0 or more"),
        ("limit", 0, "1 or more"),
        ("weights", "amcs", "did you mean amsc?"),
        ("currency", "flops", "macs, params"),
        ("depth_rule", "best", "one-standard-error, share"),
        ("device", "gpu", "cuda:N"),
        ("batch_size", 12.5, "a whole number"),
        ("seed", True, "a whole number"),
        ("deterministic", 1, "true or false"),
        ("path_epochs", "8", "a number"),
        ("round_to", 0, "1 or more"),
        ("round_to", "eight", "a whole number or auto"),
        ("round_to", True, "a whole number or auto"),
        ("round_to", 8.0, "a whole number or auto"),
        ("round_to", None, "a whole number or auto"),
        ("min_channels", 0, "1 or more"),
        ("keep", "layer1", "a list of names"),
        ("only", ("a", 3), "a list of names"),
    ],
)
def test_an_impossible_value_says_what_was_expected_and_what_came(key: str, value: object, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**{key: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{key}: expected ")
    assert expected in str(caught.value)
    assert repr(value) in str(caught.value)


def test_lists_of_names_are_taken_as_tuples() -> None:
    given = Settings(keep=["a", "b*"], only=["c"], minimum=["c=2"])  # type: ignore[arg-type]
    assert given == Settings(keep=("a", "b*"), only=("c",), minimum=("c=2",))
    assert hash(given) == hash(Settings(keep=("a", "b*"), only=("c",), minimum=("c=2",)))


def test_every_number_has_a_range_and_every_word_its_choices() -> None:
    from amsc.settings.allowed import CHOICES, RANGES

    unchecked = {field.name for field in dataclasses.fields(Settings)} - set(RANGES) - set(CHOICES)
    assert unchecked == {
        "device",
        "deterministic",
        "channels_last",
        "streams",
        "inexact",
        "capture",
        "keep",
        "only",
        "minimum",
        "plain",
        "uniform",
    }  # checked by pattern and by type


@pytest.mark.parametrize("effort", EFFORTS)
def test_an_effort_is_a_set_of_settings_that_can_be_overridden(effort: str) -> None:
    settings = Settings.of(effort, seed=7)
    changed = {key for key, value in dataclasses.asdict(settings).items() if value != getattr(Settings(), key)}
    assert changed == {*EFFORTS[effort], "seed"}
    assert Settings.of(effort, finetune_epochs=3.0).finetune_epochs == 3


def test_widths_are_rounded_by_default_and_any_number_may_say_how() -> None:
    structure = trace(open_model("digits_resnet").eval(), torch.zeros(1, 1, 8, 8))
    assert Settings() == Settings(round_to="auto")
    assert Settings().rounding(structure) == Rounding(8, gives_way=True)
    assert Settings(min_channels=3).rounding(structure) == Rounding(8, 3, gives_way=True)
    for number in (1, 8):
        assert Settings(round_to=number).rounding(structure) == Rounding(number)


def test_an_unknown_effort_is_named_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"expected one of instant, .*got 'quik'; did you mean quick\?"):
        Settings.of("quik")


def test_streams_do_not_go_with_the_penalty() -> None:
    assert Settings(streams=True).streams
    assert Settings(streams=True, method="gates", path_epochs=1).streams
    with pytest.raises(SettingsError, match=r"--method gates.*path_epochs=0"):
        Settings(streams=True, path_epochs=1)


@pytest.mark.parametrize("rule", ["share", "one-standard-error"])
def test_rules_that_judge_what_training_emptied_need_training(rule: str) -> None:
    assert Settings(depth_rule=rule, path_epochs=1).depth_rule == rule
    assert Settings(depth_rule=rule, method="gates").depth_rule == rule
    with pytest.raises(SettingsError, match=f"depth_rule='{rule}' .*--path-epochs"):
        Settings(depth_rule=rule)


runs = st.builds(
    RunSettings,
    model=st.none() | st.text(min_size=1),
    weights=st.none() | st.text(min_size=1),
    data=st.none() | st.text(min_size=1),
    target=st.just("macs=50%"),
    num_classes=st.none() | st.integers(1, 1000),
    in_channels=st.none() | st.integers(1, 4),
    settings=st.builds(
        Settings,
        seed=st.integers(0, 2**32 - 1),
        path_epochs=st.floats(0, 1e3),
        depth_share=st.floats(0, 1),
        weights=st.sampled_from(["amsc", "ssl", "gl", "rw"]),
        limit=st.none() | st.integers(1, 10**6),
        deterministic=st.booleans(),
        keep=st.lists(st.text(min_size=1)).map(tuple),
        only=st.just(("layer1*", "fc")),
        round_to=st.integers(1, 64) | st.just("auto"),
        weight_decay=st.floats(0, 1),
    ),
)


@given(run=runs)
def test_what_is_written_is_read_back(run: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    write_settings(path, run)
    assert read_settings(path) == run


def _file(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_a_file_may_say_little_and_whole_numbers_for_fractions(tmp_path: Path) -> None:
    run = read_settings(_file(tmp_path, '[run]\nmodel = "resnet20"\n[settings]\npath_epochs = 3\n'))
    assert run == RunSettings(model="resnet20", settings=Settings(path_epochs=3.0))
    assert isinstance(run.settings.path_epochs, float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[settings]\npath_epoch = 3\n", "unknown key 'path_epoch' in [settings]; did you mean path_epochs?"),
        ("[run]\nmodell = 'a'\n", "did you mean model?"),
        ("[run]\nseed = 3\n", "key 'seed' in [run] belongs in [settings]"),
        ("seed = 3\n", "belongs in [settings]"),
        ("[setings]\nseed = 3\n", "did you mean settings?"),
        ("[settings]\nzzz = 3\n", "known are batch_size"),
        ("[settings]\nlimit = 0\n", "limit: expected"),
        ("[run]\nmodel = 3\n", "model: expected text or nothing, got 3"),
        ("[settings\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, text: str, words: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_settings(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_or_binary_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        read_settings(tmp_path / "b.toml")


def test_writing_into_nowhere_is_a_run_folder_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot write"):
        write_settings(tmp_path / "none" / "settings.toml", RunSettings())


def test_flags_lie_on_top_of_the_file() -> None:
    run = RunSettings(model="a", data="digits", settings=Settings(seed=3, limit=5))
    changed = run.changed({"model": "b", "data": None}, {"seed": 0, "limit": None})
    assert changed == RunSettings(model="b", data="digits", settings=Settings(seed=0, limit=5))
    with pytest.raises(SettingsError, match="seed"):
        run.changed({}, {"seed": -1})
