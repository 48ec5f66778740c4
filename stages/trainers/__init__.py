"""Trainers, one folder each."""
