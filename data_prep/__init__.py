"""From folders of recordings to shards of training segments."""
