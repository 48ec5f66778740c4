"""Everything that touches private names of vLLM, Ray's LLM libraries and LLaMA-Factory. README.md lists it."""
