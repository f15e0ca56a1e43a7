"""Load on a deployment: by handle, by HTTP, or from inside its replicas."""
