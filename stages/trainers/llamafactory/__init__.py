"""Train with LLaMA-Factory."""
