"""The answer: an HTTP service that restores an image with the champion of a task.

The only place that imports bentoml. It meets the lifecycle in the model registry and nowhere else.
"""
