"""Recipes of published benchmarks: a TOML file each, the data sets they train on, and how one is started."""
