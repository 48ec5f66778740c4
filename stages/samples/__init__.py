"""What trainers learn of examples: token ids and labels, cut to a limit, packed, in files."""
