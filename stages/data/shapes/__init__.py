"""Shapes of rows: each file converts rows of one shape to the fields of an `Example`."""
