"""What the application and the harness both need; knows no torch."""
