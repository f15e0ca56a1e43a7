"""Emulated accelerators: replicas that take the time that a GPU is predicted to take."""
