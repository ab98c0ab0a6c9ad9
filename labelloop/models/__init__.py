"""Models behind the InstanceModel protocol, and where their weights come from."""
