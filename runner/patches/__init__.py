"""Everything that touches private names of Ray and Hydra. README.md lists it."""
