"""Battle-D runs dance tournaments, from the registration to the finals."""
