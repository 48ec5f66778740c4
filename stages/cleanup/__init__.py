"""Stage `cleanup`."""
