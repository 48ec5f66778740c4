"""Rules about the pass-through mappings: known arguments, and none that names code to run."""
