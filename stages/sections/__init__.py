"""The sections of a recipe that fine-tunes, evaluates and serves a language model."""
