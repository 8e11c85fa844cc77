"""The isolation rollback on MySQL and MariaDB."""
