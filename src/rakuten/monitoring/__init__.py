"""What became of live traffic: drift against the champion's training data, and what to do about it."""
