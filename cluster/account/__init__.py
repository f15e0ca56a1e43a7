"""The things of one cluster in an AWS account: how each is found, made, recognised and removed."""
