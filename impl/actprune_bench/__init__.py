"""The benchmark application: models, data, training, measuring, comparing and reporting."""
