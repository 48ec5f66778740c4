"""Stage `serve`."""
