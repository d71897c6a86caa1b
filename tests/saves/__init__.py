"""What saving files does to connections, under every server that loads code anew."""
