"""Other software that labelloop works with. Only the command line imports these."""
