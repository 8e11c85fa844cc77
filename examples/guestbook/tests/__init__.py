"""The tests of the guestbook."""
