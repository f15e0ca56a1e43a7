"""From an AWS account to a running Ray cluster of several GPU types, and back to nothing.

Run from a checkout, as `python -m cluster`. The package knows EC2 and Ray's cluster launcher; of
falcon_ray it knows the catalogue of GPUs and instances, and the errors. It does not know what is
searched for on the cluster.
"""
