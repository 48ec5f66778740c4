"""The pipeline engine: stages, plan, fingerprint, manifest, and the run itself."""
