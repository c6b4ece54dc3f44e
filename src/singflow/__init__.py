"""SING as a workflow: what an image classifier's head does not see, in words, degrees and pictures."""
