"""What programs call: clients of sessions, with commands, files and folders."""
