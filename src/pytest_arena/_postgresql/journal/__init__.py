"""The change journal of a database on a server: what is written down, and how it is taken back."""
