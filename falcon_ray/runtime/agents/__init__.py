"""Processes of ours beside the replicas: load drivers, and watches of what replicas take."""
