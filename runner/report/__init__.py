"""What people see of a run: the terminal, its status, trackers, pages."""
