"""Pure functions: what is accepted, what an answer means, when to try again, how fast. No I/O and no clock."""
