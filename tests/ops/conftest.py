"""Here so that the tests of every backend find parity.py, which they share."""
