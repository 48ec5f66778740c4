"""Models and adapters: obtain, convert, cache, measure."""
