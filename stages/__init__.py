"""The language-model pipeline: the built-in stages, and what they share. One folder a subject."""
