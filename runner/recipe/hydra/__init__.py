"""All that is Hydra's: composition, its errors in the project's words, limits of YAML."""
