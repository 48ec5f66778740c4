"""Rows and prompts: everything between a data set's files and a request."""
