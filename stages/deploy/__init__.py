"""Deploy adapters as Ray Serve applications, and export files for other platforms."""
