"""Resource curves: what more of one resource pays."""
