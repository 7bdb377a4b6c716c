"""Accuracy: how much of what is said in a data set is heard, by language, length and speaker."""
