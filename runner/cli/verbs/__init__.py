"""The verbs: their table, and a module for each family."""
