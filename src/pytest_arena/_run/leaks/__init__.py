"""What a test leaves behind: connections, work that still runs, tasks of event loops."""
