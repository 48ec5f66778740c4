"""Floating-point operations of a decoder's forward pass (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""

from __future__ import annotations

from stages.models.architecture import head_dim, num_params
from stages.sections.model import Architecture


def matrix_params(model: Architecture) -> int:
    """Parameters that every token is multiplied with: all but the embedding, whose rows are looked up."""
    embedding = 0 if model.tie_word_embeddings else model.vocab_size * model.hidden_size
    return num_params(model) - embedding


def forward_flops(model: Architecture, tokens: float, context: float) -> float:
    """Of so many tokens, each with so many others before it on average."""
    attention = 4 * model.num_hidden_layers * model.num_attention_heads * head_dim(model) * context
    return tokens * (2 * matrix_params(model) + attention)
