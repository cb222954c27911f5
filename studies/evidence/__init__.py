"""Tables and figures of an experiment from its raw results: intervals over images and seeds, corrected claims."""
