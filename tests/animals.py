"""Four documents with metadata of several types, one of them nested."""

from late_interaction.documents import Document

ANIMALS = [
    Document("cat", "Cats", "the cat sat on the mat", {"legs": 4, "home": "house", "tags": ["pet", "furry"], "wild": False}),
    Document("dog", "Dogs", "a dog barks at the moon", {"legs": 4, "home": "house", "tags": ["pet"], "wild": False}),
    Document("bird", "", "birds fly over the sea", {"legs": 2, "home": "nest", "tags": ["feathers"], "wild": True}),
    Document("fish", "", "fish swim under the ice", {"legs": 0, "wild": True, "loc": {"lines": [1, 2]}}),
]
QUERY = "the cat sat on the mat"
