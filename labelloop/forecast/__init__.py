"""What more labels would bring: the learning curve of a project, and what it says."""
