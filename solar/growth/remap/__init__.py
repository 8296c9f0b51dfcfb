"""What a configuration says of each layer, carried over to the grown stack; or refused by name."""
