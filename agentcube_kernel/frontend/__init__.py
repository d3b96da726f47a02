"""What shows things to a person: progress, waiting, answers; whoever the front end is."""
