"""The paths of the service, a file for each noun. A route parses, calls the one door, encodes."""
