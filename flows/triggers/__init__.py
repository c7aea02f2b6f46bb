"""What may start a retraining: the clock, new data, drift or a person, all through one function, by rules."""
