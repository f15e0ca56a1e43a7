"""What is known before the first trial: operators, their resource curves, and what they predict."""
