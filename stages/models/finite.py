"""Whether the weights of a safetensors file are numbers: read piece by piece, without a framework.

https://huggingface.co/docs/safetensors: eight bytes of the header's length, a JSON header, then the tensors' bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runner.errors import RunnerError

_PIECE_BYTES = 8 << 20
_MOST_HEADER_BYTES = 100 << 20  # as in the library
# Type -> the integer of its width, and the bits of its exponent: all of them set is infinity or NaN.
_EXPONENTS = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("<u1", 0x7C),
}


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    begin: int
    end: int


def tensors_not_finite(path: Path) -> list[str]:
    """Names of the file's tensors that hold a NaN or an infinity, in the file's order.

    Raises RunnerError when the file is not a safetensors file, or shorter than its header says.
    """
    with path.open("rb") as file:
        return [tensor.name for tensor in _tensors(file, path) if not _is_finite(file, tensor, path)]


def _tensors(file: BinaryIO, path: Path) -> list[_Tensor]:
    length = int.from_bytes(file.read(8), "little")
    try:
        if length > _MOST_HEADER_BYTES:
            raise ValueError("its header is too long")
        header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = [
            _Tensor(name, each["dtype"], *(8 + length + int(at) for at in each["data_offsets"]))
            for name, each in header.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunnerError(f"{path} is not a safetensors file: {error}", "Train again: force=[train].") from error
    return sorted(found, key=lambda tensor: tensor.begin)


def _is_finite(file: BinaryIO, tensor: _Tensor, path: Path) -> bool:
    import numpy as np

    if tensor.dtype not in _EXPONENTS:  # whole numbers, and types without infinity
        return True
    kind, exponent = _EXPONENTS[tensor.dtype]
    mask = np.dtype(kind).type(exponent)
    return not any(bool(((np.frombuffer(piece, kind) & mask) == mask).any()) for piece in _pieces(file, tensor, path))


def _pieces(file: BinaryIO, tensor: _Tensor, path: Path) -> Iterator[bytes]:
    file.seek(tensor.begin)
    left = tensor.end - tensor.begin
    while left > 0:
        piece = file.read(min(left, _PIECE_BYTES))
        if not piece:
            raise RunnerError(f"{path} ends within {tensor.name}", "Train again: force=[train].")
        left -= len(piece)
        yield piece
