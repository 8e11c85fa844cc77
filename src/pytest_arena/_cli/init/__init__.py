"""`arena init`: writes the configuration of a project and its first test."""
