"""How far the measurements of trials can be believed."""
