"""Coverage-guided fuzzing, and the inputs that it starts from."""
