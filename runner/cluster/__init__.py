"""Ray: the session of a run, its resources, its processes, and jobs on a cluster."""
