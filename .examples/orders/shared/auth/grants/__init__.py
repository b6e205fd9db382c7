"""Token grants: one file for each, with the settings that it reads."""
