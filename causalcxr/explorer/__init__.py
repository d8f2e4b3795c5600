"""A page where one moves an attribute and the X-ray follows."""
