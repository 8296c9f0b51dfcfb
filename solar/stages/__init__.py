"""One function a stage: the glue between configuration, artifacts and the packages that do the work."""
