"""Small encoded images for the readers."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


class Pictures:
    """Makes PNG images of one colour, so that a decoded image tells which one it was."""

    def png(self, value: int, *, width: int = 8, height: int = 8, mode: str = "RGB") -> bytes:
        shape = (height, width, 3) if mode == "RGB" else (height, width)
        return self.encode(np.full(shape, value, np.uint8))

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()


@pytest.fixture
def pictures() -> Pictures:
    return Pictures()
