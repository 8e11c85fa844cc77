"""The projects are run by tests, and not collected here."""

collect_ignore = ["projects"]
