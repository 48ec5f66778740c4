"""Data sets that are generated: `generated://NAME`."""

PROMPT = "Write the meaning of this sentence as function(attribute[value]).\n{input}"
"""The user message that recipes have for these rows. It says nothing of others."""
