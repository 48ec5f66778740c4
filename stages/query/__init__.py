"""Stage `query`."""
