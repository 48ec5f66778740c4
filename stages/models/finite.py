"""Whether the weights of a safetensors file are numbers: read piece by piece, without a framework.

https://huggingface.co/docs/safetensors: eight bytes of the header's length, a JSON header, then the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from runner.errors import RunnerError

_PIECE_BYTES = 8 << 20
_MOST_HEADER_BYTES = 100 << 20  # as in the library
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
# Type -> the integer of its width, and the bits that are all set in its infinities and NaNs: mostly the exponent's.
_NOT_NUMBERS = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "C64": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("<u1", 0x7C),
    "F8_E4M3": ("<u1", 0x7F),
    "F8_E8M0": ("<u1", 0xFF),
}


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    begin: int
    end: int


def tensors_not_finite(path: Path) -> list[str]:
    """Names of the file's tensors that hold a NaN or an infinity, in the file's order.

    Raises RunnerError when the file is not a safetensors file, or not all that its header says, and nothing else.
    """
    with path.open("rb") as file:
        return [tensor.name for tensor in _tensors(file, path) if not _is_finite(file, tensor, path)]


def _tensors(file: BinaryIO, path: Path) -> list[_Tensor]:
    length = int.from_bytes(file.read(8), "little")
    data = path.stat().st_size - 8 - length
    try:
        if length > _MOST_HEADER_BYTES or data < 0:
            raise ValueError("its header is too long")
        header = json.loads(file.read(length), object_pairs_hook=_each_once)
        header.pop("__metadata__", None)
        found = sorted((_tensor(name, **each) for name, each in header.items()), key=attrgetter("begin", "end"))
        ends = [0, *(tensor.end for tensor in found)]
        if [tensor.begin for tensor in found] != ends[:-1] or ends[-1] != data:
            raise ValueError("its tensors overlap, or leave bytes between them or behind them")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunnerError(f"{path} is not a safetensors file: {error}", "Train again: force=[train].") from error
    return [replace(tensor, begin=8 + length + tensor.begin, end=8 + length + tensor.end) for tensor in found]


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name in its header stands twice")
    return found


def _tensor(name: str, dtype: str, shape: list[int], data_offsets: list[int]) -> _Tensor:
    """The tensor, which is where the header says, as large as its shape and type are."""
    begin, end = data_offsets
    if dtype not in _BITS:
        raise ValueError(f"{name} is of the unknown type {dtype!r}")
    if not all(type(each) is int and each >= 0 for each in (begin, end, *shape)):
        raise ValueError(f"the sizes of {name} are not whole numbers")
    if math.prod(shape) * _BITS[dtype] != (end - begin) * 8:
        raise ValueError(f"{name} has not as many bytes as its shape and type")
    return _Tensor(name, dtype, begin, end)


def _is_finite(file: BinaryIO, tensor: _Tensor, path: Path) -> bool:
    import numpy as np

    if tensor.dtype not in _NOT_NUMBERS:  # whole numbers, and types without infinity
        return True
    kind, bits = _NOT_NUMBERS[tensor.dtype]
    mask = np.dtype(kind).type(bits)
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
