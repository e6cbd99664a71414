"""What a model is trained for: fit, evaluate, predict."""
