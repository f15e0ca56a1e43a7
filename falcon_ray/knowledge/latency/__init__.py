"""From operators to seconds: three predictors, and what combines them."""
