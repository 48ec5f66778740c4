"""What a request must pass before the endpoint answers it: keys, limits, names and values."""
