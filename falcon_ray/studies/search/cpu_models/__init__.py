"""Models that no profile and no fitted constant has seen, for our own serving measurements.

Each module holds a factory and its `_inputs` function, as the profiler's reference models do, and
is named by reference only: importing the study does not load torch.
"""
