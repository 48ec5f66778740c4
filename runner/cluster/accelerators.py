"""What GPU types can compute, by Ray's names of them (ray.util.accelerators)."""

from __future__ import annotations

WITHOUT_BFLOAT16 = ("V100", "P100", "T4", "P4", "K80")  # before Ampere
