"""Everything to run the app on one machine with no Azure account. Not deployed."""
