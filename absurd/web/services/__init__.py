"""What the routes of products offer, over repositories: none of it knows of requests but to send a file."""
