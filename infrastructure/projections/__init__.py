"""Read models at work: `generations` knows them, `follower` keeps one up with the log, `engine` runs
all followers, `rebuild` makes another generation beside the live one, `reading` waits for writes."""
