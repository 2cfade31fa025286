"""Settings and bundle -> the files of an application package, checked."""
