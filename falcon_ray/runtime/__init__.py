"""The only floor that knows Ray, Serve, torch models in service, and processes."""
