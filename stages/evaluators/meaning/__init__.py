"""Meaning representations such as ViGGO's."""
