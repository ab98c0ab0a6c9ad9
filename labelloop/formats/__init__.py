"""Annotation formats: one module each, read to records and written from records."""
