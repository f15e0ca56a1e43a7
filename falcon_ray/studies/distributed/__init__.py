"""Studies of many trials on clusters of several GPU types, on emulated ones of this machine."""
