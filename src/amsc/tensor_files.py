"""Tensors in safetensors files that know whether they are still what was written."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from amsc.errors import RunFolderError

__all__ = ["digest_of", "load_tensors", "save_tensors"]

CHECKSUM = "blake2b"
"""The key, among the metadata of a file, of the checksum of all that follows the header."""
DIGEST_BYTES = 32
UNKNOWN = "0" * (2 * DIGEST_BYTES)
LONGEST_HEADER = 100_000_000
"""Bytes; the limit of safetensors itself."""
CHUNK = 1 << 20


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors`, copied to the CPU, to a safetensors file with a checksum of them among its metadata.

    Raises:
        OSError: it cannot be written.
    """
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        save_file(copies, path, metadata={"format": "pt", CHECKSUM: UNKNOWN})
    except SafetensorError as error:  # that the disk is full, for example
        raise OSError(str(error)) from error
    with path.open("r+b") as file:
        header = _header(file)
        said = {CHECKSUM: digest_of(file), "format": "pt"}
        begin = header.index(b"{", header.index(b'"__metadata__"'))
        file.seek(8 + begin)  # as long as what is there, and in an order that does not change from run to run
        file.write(json.dumps(said, separators=(",", ":")).encode())


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, if they are what was written; a file without a checksum is taken as it is.

    Raises:
        RunFolderError: the file is not there, damaged, or no safetensors file; the message says why.
    """
    try:
        if path.exists() and not path.is_file():  # to open a pipe would be to wait for who writes to it
            raise OSError("it is no file")
        with path.open("rb") as file:
            wanted = _checksum(_header(file))
            found = digest_of(file) if wanted else None
        if found != wanted:
            raise RunFolderError("its checksum is not that of what was written")
        return load_file(path)
    except (OSError, SafetensorError, ValueError, RecursionError, struct.error) as error:
        raise RunFolderError(str(error) or type(error).__name__) from error


def digest_of(file: BinaryIO, size: int | None = None) -> str:
    """The checksum of what follows in `file`: of `size` bytes of it, or of all."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for chunk in _chunks(file, size):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: BinaryIO, size: int | None) -> Iterator[bytes]:
    left = size
    while chunk := file.read(CHUNK if left is None else min(CHUNK, left)):
        yield chunk
        left = None if left is None else left - len(chunk)


def _header(file: BinaryIO) -> bytes:
    """The JSON at the beginning of a safetensors file, which is read up to its end."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(LONGEST_HEADER, os.fstat(file.fileno()).st_size):
        raise ValueError(f"its header claims {length:,} bytes")
    return file.read(length)


def _checksum(header: bytes) -> str | None:
    plain = json.loads(header)
    metadata = plain.get("__metadata__") if isinstance(plain, dict) else None
    return metadata.get(CHECKSUM) if isinstance(metadata, dict) else None
