"""What training and checking need of the data: pool, draws, views, checks, synthetic images."""
