"""Real deployments that are slow, faulty or noisy on purpose, to try measurements on."""
