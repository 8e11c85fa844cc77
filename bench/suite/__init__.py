"""What the measured runs of pytest are made of: an app, and ways to isolate its tests."""
