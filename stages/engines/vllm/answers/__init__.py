"""Tool calls and reasoning in answers: which of vLLM's parsers reads them, and what it makes of a text."""
