"""A recipe: its files, its schema, its rules, and how it is shown."""
