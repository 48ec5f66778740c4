"""Rows as the tokens that every trainer here learns."""
