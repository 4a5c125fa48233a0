"""What the command line shows: rich tables for people, JSON for programs; one file for a file of commands."""
