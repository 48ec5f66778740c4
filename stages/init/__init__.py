"""`init`: from data of any common form to a recipe that fits it, with a test and the commands to run it."""
