"""Sampling parameters: the rules about them, and the values that vLLM can compute with."""
