"""What a user asks, composed of the rooms below into a result."""
