"""What every trainer's Ray Train worker does: reports, sealed checkpoints, stopping, resuming."""
