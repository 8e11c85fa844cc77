"""Small apps as a young team writes them, each with its tests. `shop` has what they share."""
