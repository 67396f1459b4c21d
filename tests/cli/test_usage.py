"""What is typed wrong is answered with what was meant, on standard error, with the documented exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from amsc.cli import main
from amsc.cli.flags import SETTING_FLAGS
from amsc.models import ZOO

COMMANDS = ("demo", "inspect", "compress", "resume", "measure")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_describes_and_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:\n  amsc " + command in text
    for flag in ("--json", "--quiet", "--debug"):
        assert flag in text
    if command != "resume":
        for flag in ("--out", "--seed", "--deterministic", "--device", "--settings", "--threads"):
            assert flag in text


def test_help_lists_commands_networks_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (*COMMANDS, *ZOO, "exit codes:"):
        assert word in text


def test_help_of_compress_shows_every_choice_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compress", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in SETTING_FLAGS:
        assert "--" + name.replace("_", "-") in text
    assert text.count("(default:") >= len(SETTING_FLAGS)
    assert "what may be left or lost, such as macs=50%" in text


def test_version_names_amsc_torch_and_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("amsc ")


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["comprss"], 2, "did you mean compress?"),
        (["compress", "resnet20", "--finetune-epoch", "3"], 2, "did you mean --finetune-epochs?"),
        (["inspect", "resnet20", "--explian", "x"], 2, "did you mean --explain?"),
        (["resume", "x", "--seed", "1"], 2, "unknown flag --seed"),
        (["measure", "resnet20", "extra"], 2, "unknown argument extra"),
        (["compress", "resnet20", "--path-epochs", "many"], 2, "invalid float value: 'many'"),
        (["compress", "resnet20", "--penalty-weights", "amcs"], 2, "did you mean amsc?"),
        (["compress", "resnet20", "--round-to", "eight"], 2, "expected auto or a whole number, 1 or more; got 'eight'"),
        (
            ["scan", "resnet20", "--data", "digits", "--round-to", "0"],
            2,
            "round_to: expected a finite number, 1 or more",
        ),
        (["compress", "--data", "digits", "--target", "macs=50%"], 2, "MODEL is missing"),
        (["compress", "resnet20", "--target", "macs=50%"], 2, "--data DATA is missing"),
        (["compress", "resnet20", "--data", "digits"], 2, "--target T is missing"),
        (["compress", "resnet20", "--data", "digits", "--target", "macs=50%", "--depth-share", "2"], 2, "depth_share"),
        (["measure", "resnet20", "--device", "gpu"], 2, "expected cpu, cuda"),
        (["measure", "resnet20", "--input-shape", "1,a"], 2, "expected sizes such as 1,3,32,32"),
        (["measure", "resnet20", "--settings", "none.toml"], 2, "cannot read the settings file none.toml"),
        (["compress", "resnet20", "--data", "digits", "--target", "latency=3kg"], 5, "units of latency are us, ms, s"),
        (["compress", "resnet20", "--data", "digits", "--target", "macs=100%"], 5, "below 100 %"),
        (["compress", "resnt20", "--data", "digits", "--target", "macs=50%"], 3, "did you mean resnet20"),
        (["compress", "resnet20", "--data", "digit", "--target", "macs=50%"], 4, "did you mean digits"),
        (["compress", "resnet20", "--data", "parquet:none", "--target", "macs=50%"], 4, "none"),
        (["inspect", "resnet20", "--weights", "none.pt"], 3, "none.pt"),
        (["inspect", "resnet20", "--input-shape", "1,3,1"], 3, "failed on example_inputs of shape (1, 3, 1)"),
        (["inspect", "resnet20", "--explain", "layer1.0.conv1.wieght"], 6, "layer1.0.conv1.weight"),
        (["measure", "collections:OrderedDict"], 3, "torch.nn.Module"),
        (["resume", "none"], 8, "is not a run folder"),
        (["measure", "."], 8, "settings.toml"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "none", "--debug"]) == 8
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--json", "resume", "none"], ["resume", "none", "--json"], ["comprss", "--json"]])
def test_an_error_is_a_json_object_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(words)
    payload = json.loads(capsys.readouterr().out)
    assert payload["exit_code"] == code
    assert payload["error"]["message"]


def test_an_existing_run_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.toml").write_text("# mine")
    words = ["compress", "digits_resnet", "--data", "digits", "--target", "macs=50%", "--out", str(folder)]
    assert main(words) == 8
    assert f"amsc resume {folder}" in capsys.readouterr().err
    assert (folder / "settings.toml").read_text() == "# mine"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    words = ["compress", "digits_resnet", "--data", "digits", "--target", "macs=50%"]
    assert main([*words, "--out", str(tmp_path / "file" / "run")]) == 8
    assert "cannot" in capsys.readouterr().err


def test_an_unexpected_fault_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("amsc.cli.measure.measure", broken)
    assert main(["measure", "digits_resnet"]) == 1
    assert capsys.readouterr().err == (
        "error: unexpected ZeroDivisionError: by zero (run again with --debug for the traceback)\n"
    )


@pytest.mark.parametrize("words", ["inspect digits_resnet", "--print-completion zsh"])
def test_output_into_a_closed_pipe_is_no_crash(words: str) -> None:
    command = f"{sys.executable} -m amsc {words} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=_environment())
    assert done.stderr == ""


def test_a_shell_completes_commands_flags_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.pth").touch()
    assert main(["--print-completion", "bash"]) == 0
    (tmp_path / "amsc.bash").write_text(capsys.readouterr().out)

    def completed(*words: str) -> list[str]:
        function = "$(complete -p amsc | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
        given = f"COMP_WORDS=(amsc {' '.join(words)}); COMP_CWORD={len(words)}"
        script = f'source amsc.bash; {given}; {function} amsc {words[-1]}; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.split()

    assert completed("com") == ["compress"]
    assert "--effort" in completed("compress", "--eff")
    assert completed("compress", "--effort", "qui") == ["quick"]
    assert completed("compress", "--weights", "wei") == ["weights.pth"]


def _environment() -> dict[str, str]:
    import os

    import amsc.errors

    source = str(Path(amsc.errors.__file__).parents[1])
    return os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
