"""The app. CONTRIBUTING.md says what each folder is for."""
