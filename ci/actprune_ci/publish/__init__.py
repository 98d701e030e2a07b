"""Reports, dashboards, issues and comments."""
