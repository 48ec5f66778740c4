"""vLLM behind Ray Serve: its configuration, its replicas and what runs in them."""
