"""Prediction over pools, folders and large fields: batched, tiled, stitched, resumable."""
