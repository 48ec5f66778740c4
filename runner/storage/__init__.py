"""Files that outlast a run: stores, digests, atomic writes, locks."""
