"""Train with TRL's trainers on Hugging Face Accelerate."""
