"""Small safetensors files of chosen values, written without a framework."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def write_safetensors(path: Path, **tensors: list[float]) -> None:
    """A file with these tensors of float32."""
    header, data = {}, b""
    for name, values in tensors.items():
        piece = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
