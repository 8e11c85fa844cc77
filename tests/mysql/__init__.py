"""MySQL and MariaDB. The server is at ``TESTS_MYSQL``; without one the tests are skipped."""
