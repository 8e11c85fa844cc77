"""What did the user ask for? Read once, frozen."""
