"""Infer and serve with vLLM."""
