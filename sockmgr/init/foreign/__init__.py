"""Read the configs of other managers and servers, a file each, into one form. Reads no file."""
