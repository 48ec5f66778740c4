"""Rules about arguments that several trainers take from transformers."""
