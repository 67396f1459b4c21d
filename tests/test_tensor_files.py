"""Files of tensors that know whether they are what was written."""

import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from amsc.errors import RunFolderError
from amsc.tensor_files import load_tensors, save_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4).bfloat16(), "none": torch.zeros(0)}


def test_what_is_written_comes_back_also_for_others(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {**TENSORS, "turned": TENSORS["a"].T})
    for found in (load_tensors(tmp_path / "a.safetensors"), load_file(tmp_path / "a.safetensors")):
        assert sorted(found) == ["a", "b", "none", "turned"]
        assert torch.equal(found["turned"], TENSORS["a"].T)


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path) -> None:
    found = set()
    for number in range(8):  # safetensors itself writes what is said of a file in any order
        save_tensors(tmp_path / f"{number}", TENSORS)
        found.add((tmp_path / f"{number}").read_bytes())
    assert len(found) == 1


def test_one_bit_that_turned_over_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_tensors(file, TENSORS)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match="checksum"):
        load_tensors(file)


def test_files_of_others_are_read_and_what_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(TENSORS, file)
    assert sorted(load_tensors(file)) == sorted(TENSORS)
    huge = struct.pack("<Q", 10**9)
    for content in (b"", b"abc", huge + b"{", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 40_000) + b"[" * 40_000):
        file.write_bytes(content)
        with pytest.raises(RunFolderError):
            load_tensors(file)
    with pytest.raises(RunFolderError, match="No such file"):
        load_tensors(tmp_path / "nowhere")
