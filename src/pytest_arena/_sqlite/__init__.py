"""All of SQLite: where its files stand, how a connection is led there, how one is brought back."""
