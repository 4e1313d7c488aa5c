"""The commands `sessions …` and `doctor`, for people."""
