"""Train with axolotl."""
