"""Metrics of instance segmentation with their bootstrap intervals."""
