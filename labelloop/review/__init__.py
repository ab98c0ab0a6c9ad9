"""Review: what a person is shown, and what the corrections say."""
