"""Weights that are not numbers are found, in every type of float and wherever they stand."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.errors import RunnerError
from stages.models.finite import tensors_not_finite

BAD_BITS = {"F64": 0x7FF8 << 48, "F32": 0x7FC00000, "F16": 0x7E00, "BF16": 0x7FC0, "F8_E5M2": 0x7E, "F8_E4M3": 0x7F}
INFINITE_BITS = {
    "F64": 0xFFF0 << 48,
    "F32": 0xFF800000,
    "F16": 0xFC00,
    "BF16": 0xFF80,
    "F8_E5M2": 0xFC,
    "F8_E4M3": 0xFF,
}
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E5M2": 1, "F8_E4M3": 1, "I64": 8}


def write(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> Path:
    """tensors: name -> its type, and each value's bits."""
    header, data = {}, b""
    for name, (dtype, values) in tensors.items():
        piece = np.array(values, f"<u{WIDTHS[dtype]}").tobytes()
        header[name] = {"dtype": dtype, "shape": [len(values)], "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("bits", [BAD_BITS, INFINITE_BITS], ids=["NaN", "infinity"])
@pytest.mark.parametrize("dtype", BAD_BITS)
def test_it_is_found_in_every_type(dtype: str, bits: dict[str, int], tmp_path: Path) -> None:
    good, bad = (dtype, [0, 1, 2]), (dtype, [0, 1, bits[dtype]])
    assert tensors_not_finite(write(tmp_path / "x", {"a": good, "b": bad, "c": good})) == ["b"]


def test_it_is_found_at_the_end_of_a_tensor_that_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.models.finite._PIECE_BYTES", 16)
    path = write(tmp_path / "x", {"a": ("F32", [0] * 99), "b": ("F32", [0] * 98 + [BAD_BITS["F32"]])})
    assert tensors_not_finite(path) == ["b"]


def test_whole_numbers_are_never_found(tmp_path: Path) -> None:
    assert tensors_not_finite(write(tmp_path / "x", {"a": ("I64", [BAD_BITS["F64"]])})) == []


@pytest.mark.parametrize("content", [b"", b"weights", struct.pack("<Q", 1 << 60), struct.pack("<Q", 2) + b"[]"])
def test_what_is_not_a_safetensors_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(RunnerError, match="x is not a safetensors file"):
        tensors_not_finite(tmp_path / "x")


def test_a_file_that_is_cut_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": ("F32", [0, 0, 0])})
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(RunnerError, match="overlap, or leave bytes"):
        tensors_not_finite(path)


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NEXT = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": GOOD, "b": {**NEXT, "data_offsets": [4, 12]}}, "overlap"),
        ({"a": GOOD, "b": {**NEXT, "data_offsets": [0, 8]}}, "overlap"),
        ({"a": {**GOOD, "data_offsets": [8, 16]}}, "leave bytes"),
        ({"a": GOOD}, "leave bytes"),
        ({}, "leave bytes"),
        ({"a": GOOD, "b": {**NEXT, "shape": [1, 1]}}, "not as many bytes"),
        ({"a": GOOD, "b": {**NEXT, "data_offsets": [8, 8]}}, "not as many bytes"),
        ({"a": GOOD, "b": {**NEXT, "dtype": "F13"}}, "unknown type 'F13'"),
        ({"a": GOOD, "b": {**NEXT, "shape": [-2]}}, "not whole numbers"),
        ({"a": GOOD, "b": {**NEXT, "shape": [True, 2]}}, "not whole numbers"),
        ({"a": GOOD, "b": {**NEXT, "data_offsets": [-8, 0]}}, "not whole numbers"),
        ({"a": GOOD, "b": {**NEXT, "data_offsets": ["8", "16"]}}, "not whole numbers"),
        ({"a": GOOD, "b": {**NEXT, "more": 1}}, "unexpected keyword"),
        ({"a": GOOD, "b": [8, 16]}, "mapping"),
    ],
)
def test_a_header_that_lies_is_refused(header: dict[str, Any], words: str, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    with pytest.raises(RunnerError, match=f"x is not a safetensors file: .*{words}"):
        tensors_not_finite(tmp_path / "x")


@pytest.mark.parametrize(
    "part", ['"a": A, "a": A', '"a": {"dtype": "I8", "dtype": "F32", "shape": [4], "data_offsets": [0, 16]}']
)
def test_a_name_that_stands_twice_in_a_header_is_refused(part: str, tmp_path: Path) -> None:
    text = f"{{{part}}}".replace("A", json.dumps({**GOOD, "shape": [4], "data_offsets": [0, 16]})).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    with pytest.raises(RunnerError, match="stands twice"):
        tensors_not_finite(tmp_path / "x")


def raw(path: Path, header: dict[str, Any] | str, data: bytes) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("place", [0, 1])
def test_it_is_found_in_both_halves_of_complex_numbers(place: int, tmp_path: Path) -> None:
    halves = [0, 0, 0, 0]
    halves[2 + place] = BAD_BITS["F32"]
    header = {"a": {"dtype": "C64", "shape": [2], "data_offsets": [0, 16]}}
    assert tensors_not_finite(raw(tmp_path / "x", header, struct.pack("<4I", *halves))) == ["a"]


def test_it_is_found_in_scales_that_have_no_infinity(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}}
    assert tensors_not_finite(raw(tmp_path / "x", header, b"\x00\xfe")) == []
    assert tensors_not_finite(raw(tmp_path / "x", header, b"\x00\xff")) == ["a"]


def test_two_numbers_of_four_bits_are_a_byte(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F4", "shape": [2, 3], "data_offsets": [0, 3]}}
    assert tensors_not_finite(raw(tmp_path / "x", header, b"\xff\xff\xff")) == []


def test_an_empty_tensor_is_where_another_begins(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    assert tensors_not_finite(raw(tmp_path / "x", {"b": GOOD, "a": empty}, bytes(8))) == []


def test_a_header_is_read_up_to_the_library_s_limit_alone(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write(struct.pack("<Q", (100 << 20) + 1))
        file.truncate((100 << 20) + 100)
    with pytest.raises(RunnerError, match="its header is too long"):
        tensors_not_finite(tmp_path / "x")


def test_a_header_nested_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="x is not a safetensors file"):
        tensors_not_finite(raw(tmp_path / "x", '{"a": ' + "[" * 100_000, b""))
