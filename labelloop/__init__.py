"""labelloop: instance segmentation for biology labs from few labels, with people in the loop."""

__version__ = "0.1.0"
