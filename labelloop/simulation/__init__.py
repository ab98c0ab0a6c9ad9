"""The loop replayed with a simulated person, to compare ways of choosing images."""
