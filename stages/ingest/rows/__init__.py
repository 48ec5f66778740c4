"""The rows of a dataset on their way to Examples: read in pieces, collected, chosen, and what is told of them."""
