"""Runs: the files of one, its models, and how good they are."""
