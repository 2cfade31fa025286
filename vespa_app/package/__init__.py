"""Settings and bundle -> the files of an application package; both are checked."""
