"""Guided distillation: recipe, stages, pseudo-labels, EMA."""
