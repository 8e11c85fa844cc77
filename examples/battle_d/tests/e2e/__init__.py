"""End-to-end tests: requests to the app, on data that was there before the first of them."""
