"""How long a decoder computes, from its architecture and what an accelerator can do, before it is measured."""
