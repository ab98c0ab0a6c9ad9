"""The annotation budget: effort, selection, audit, forecast and simulation."""
