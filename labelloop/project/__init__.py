"""A project on disk: labelloop.toml, the ledger, and what is added to them."""
