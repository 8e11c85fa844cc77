"""What an invoice is, and how it is kept."""
