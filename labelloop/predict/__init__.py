"""Prediction over pools and large fields: batched, tiled, stitched, resumable."""
